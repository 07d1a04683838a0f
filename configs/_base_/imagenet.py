# ImageNet-1K and the recipe of the DLA release: the host's ResNet-50 one with 3 warm-up epochs.
_base_ = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'
custom_imports = dict(imports=['mmdla'], allow_failed_imports=False)

model = dict(backbone=dict(type='DLAResNet'))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=3, convert_to_iter_based=True),
    dict(type='MultiStepLR', by_epoch=True, milestones=[30, 60, 90], gamma=0.1),
]
