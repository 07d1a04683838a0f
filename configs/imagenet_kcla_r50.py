_base_ = '_base_/imagenet.py'
model = dict(backbone=dict(layer_attention=dict(type='KCLA', drop_path_rate=0.2)))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=3, convert_to_iter_based=True),
    dict(type='MultiStepLR', by_epoch=True, milestones=[40, 70, 90], gamma=0.1),
]
