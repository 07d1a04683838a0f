_base_ = './imagenet_mrla_l_r50.py'
model = dict(backbone=dict(depth=101))
