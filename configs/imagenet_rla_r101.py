_base_ = './imagenet_rla_r50.py'
model = dict(backbone=dict(depth=101))
