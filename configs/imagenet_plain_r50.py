_base_ = '_base_/imagenet.py'
model = dict(backbone=dict(layer_attention=None))
