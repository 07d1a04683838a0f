_base_ = './imagenet_kcla_r50.py'
model = dict(backbone=dict(depth=101))
