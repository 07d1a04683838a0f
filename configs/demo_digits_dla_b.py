_base_ = ['_base_/digits.py', '_base_/cifar_attentions.py']
model = dict(backbone=dict(layer_attention=_base_.attentions.dla_b))
