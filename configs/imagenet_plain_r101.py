_base_ = './imagenet_plain_r50.py'
model = dict(backbone=dict(depth=101))
