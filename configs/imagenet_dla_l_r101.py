_base_ = './imagenet_dla_l_r50.py'
model = dict(backbone=dict(depth=101))
