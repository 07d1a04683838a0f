_base_ = ['_base_/short_cifar10.py', '_base_/cifar_attentions.py']
model = dict(backbone=dict(layer_attention=_base_.attentions.dla_b))
