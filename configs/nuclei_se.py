_base_ = '_base_/nuclei.py'
model = dict(backbone=dict(layer_attention=_base_.attentions.se))
