# Blood cells (BCCD): Faster R-CNN from random weights, on images of half the size, 320x240. It is
# trained on the published train part; decisions are for the val part, numbers are of the test part.
_base_ = 'slim_detector.py'

model = dict(roi_head=dict(bbox_head=dict(num_classes=3)))
data = dict(
    data_root='data/bccd',
    data_prefix=dict(img='images/'),
    metainfo=dict(classes=('RBC', 'WBC', 'Platelets')),
)
scale = (320, 240)
train_dataloader = dict(
    batch_size=2,
    dataset=dict(
        **data,
        ann_file='annotations/instances_train.json',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='Resize', scale=scale, keep_ratio=True),
            _base_.flip,
            dict(type='PackDetInputs'),
        ],
    ),
)
val_dataloader = dict(
    dataset=dict(
        **data,
        ann_file='annotations/instances_test.json',
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
param_scheduler = [{**_base_.param_scheduler[0], 'end': 50}, _base_.param_scheduler[1]]
auto_scale_lr = dict(base_batch_size=2)
