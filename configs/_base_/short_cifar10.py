# CIFAR-10 as images in one folder for each class, with a schedule that a CPU core runs to its end:
# that of the DLA release (SGD, 0.1, batch 128, 1e-4), with a cosine in place of its steps.
_base_ = 'cifar10.py'

epochs = 6
crop = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomCrop', crop_size=32, padding=4),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        _delete_=True, type='CustomDataset', data_root='data/cifar10_images/train', pipeline=crop
    ),
)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        _delete_=True,
        type='CustomDataset',
        data_root='data/cifar10_images/val',
        pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')],
    ),
)
test_dataloader = val_dataloader
data_preprocessor = dict(to_rgb=True)
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator
param_scheduler = dict(
    _delete_=True,
    type='CosineAnnealingLR',
    T_max=epochs,
    by_epoch=True,
    convert_to_iter_based=True,
)
train_cfg = dict(by_epoch=True, max_epochs=epochs, val_interval=epochs)
