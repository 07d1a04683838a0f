# Blood cells (BCCD): Faster R-CNN from random weights, on images of half the size, 320x240. It is
# trained on the published train part; decisions are for the val part, numbers are of the test part.
_base_ = 'slim_detector.py'

epochs = 3
model = dict(roi_head=dict(bbox_head=dict(num_classes=3)))
metainfo = dict(classes=('RBC', 'WBC', 'Platelets'))
scale = (320, 240)
train_dataloader = dict(
    batch_size=2,
    dataset=dict(
        data_root='data/bccd',
        ann_file='annotations/instances_train.json',
        data_prefix=dict(img='images/'),
        metainfo=metainfo,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='Resize', scale=scale, keep_ratio=True),
            dict(type='RandomFlip', prob=[0.25, 0.25, 0.25],
                 direction=['horizontal', 'vertical', 'diagonal']),
            dict(type='PackDetInputs'),
        ],
    ),
)  # fmt: skip
val_dataloader = dict(
    dataset=dict(
        data_root='data/bccd',
        ann_file='annotations/instances_test.json',
        data_prefix=dict(img='images/'),
        metainfo=metainfo,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=scale, keep_ratio=True),
            dict(type='LoadAnnotations', with_bbox=True),
            _base_.pack_test,
        ],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type='CocoMetric', ann_file='data/bccd/annotations/instances_test.json', metric='bbox'
)
test_evaluator = val_evaluator
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=epochs, val_interval=epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', T_max=epochs, by_epoch=True, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=2)
