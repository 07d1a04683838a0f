_base_ = '_base_/imagenet.py'
model = dict(
    backbone=dict(layer_attention=dict(type='MRLABase', head_channels=16, drop_path_rate=0.2))
)
