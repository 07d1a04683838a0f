# Nuclei (Data Science Bowl 2018, stage 1): Mask R-CNN from random weights, crops of 256x256.
_base_ = 'slim_detector.py'

model = dict(
    type='MaskRCNN',
    data_preprocessor=dict(pad_mask=True),
    rpn_head=dict(anchor_generator=dict(scales=[4])),  # half of the nuclei are below 23 pixels
    roi_head=dict(
        bbox_head=dict(num_classes=1),
        mask_roi_extractor=dict(
            type='SingleRoIExtractor',
            roi_layer=dict(type='RoIAlign', output_size=14, sampling_ratio=0),
            out_channels=64,
            featmap_strides=[4, 8, 16, 32],
        ),
        mask_head=dict(
            type='FCNMaskHead',
            num_convs=4,
            in_channels=64,
            conv_out_channels=64,
            num_classes=1,
            loss_mask=dict(type='CrossEntropyLoss', use_mask=True, loss_weight=1.0),
        ),
    ),
    train_cfg=dict(rcnn=dict(mask_size=28)),
    test_cfg=dict(rcnn=dict(mask_thr_binary=0.5)),
)
data = dict(
    data_root='data/nuclei',
    data_prefix=dict(img='images/'),
    metainfo=dict(classes=('nucleus',)),
)
train_dataloader = dict(
    dataset=dict(
        **data,
        ann_file='annotations/instances_train.json',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            dict(type='RandomCrop', crop_size=(256, 256)),
            _base_.flip,
            dict(type='PackDetInputs'),
        ],
    ),
)
val_dataloader = dict(
    dataset=dict(
        **data,
        ann_file='annotations/instances_val.json',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale_factor=1.0, keep_ratio=True),  # masks ask for the factor
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            _base_.pack_test,
        ],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type='CocoMetric',
    ann_file='data/nuclei/annotations/instances_val.json',
    metric=['bbox', 'segm'],
)
test_evaluator = val_evaluator
