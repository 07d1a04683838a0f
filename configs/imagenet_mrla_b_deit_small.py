_base_ = 'imagenet_mrla_b_deit_tiny.py'
model = dict(backbone=dict(backbone=dict(arch='deit-small')), head=dict(in_channels=384))
