_base_ = '_base_/bccd.py'
model = dict(backbone=dict(layer_attention=_base_.attentions.mrla_b))
