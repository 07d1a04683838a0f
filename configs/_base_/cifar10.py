# CIFAR-10 and the recipe of the DLA release: 180 epochs, batch 128, SGD with steps at 100 and 150.
_base_ = ['mmpretrain::_base_/datasets/cifar10_bs16.py', 'mmpretrain::_base_/default_runtime.py']
custom_imports = dict(imports=['mmdla'], allow_failed_imports=False)

model = dict(
    type='ImageClassifier',
    # other depths: --cfg-options model.backbone.depth=56 (or 110)
    backbone=dict(type='DLAResNet_CIFAR', depth=20, block='bottleneck', out_indices=(2,)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=256,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
    ),
)
train_dataloader = dict(batch_size=128)
val_dataloader = dict(batch_size=256)
test_dataloader = dict(batch_size=256)

optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4))
param_scheduler = dict(type='MultiStepLR', by_epoch=True, milestones=[100, 150], gamma=0.1)
train_cfg = dict(by_epoch=True, max_epochs=180, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=128)
