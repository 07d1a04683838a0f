_base_ = '_base_/imagenet_deit.py'
model = dict(backbone=dict(layer_attention=dict(type='MRLALightTokens')))
