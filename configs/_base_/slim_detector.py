# A two-stage detector that a CPU core trains in minutes: a ResNet-50 of a quarter of the width,
# with the blocks (3, 4, 6, 3) of the full one and 64 to 512 channels, and narrow heads. All of it
# learns, from random weights; the protocol is in docs/results.md.
_base_ = ['mmdet::_base_/models/faster-rcnn_r50_fpn.py', 'mmdet::_base_/default_runtime.py']
custom_imports = dict(imports=['mmdla'], allow_failed_imports=False)

attentions = dict(
    # The reduction is that of the CIFAR networks, the rest is the default: no drop path, and the
    # attention starts with random weights, as the official one does.
    plain=None,
    se=dict(type='SE'),
    eca=dict(type='ECA'),
    mrla_l=dict(type='MRLALight'),
    mrla_b=dict(type='MRLABase'),
    dla_l=dict(type='DLALight', reduction=4),
    dla_b=dict(type='DLABase', reduction=4),
)
model = dict(
    backbone=dict(
        type='DLAResNet',
        base_channels=16,
        frozen_stages=-1,
        norm_eval=False,
        init_cfg=None,
    ),
    neck=dict(in_channels=[64, 128, 256, 512], out_channels=64),
    rpn_head=dict(in_channels=64, feat_channels=64),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64),
        bbox_head=dict(in_channels=64, fc_out_channels=256),
    ),
    train_cfg=dict(rpn_proposal=dict(max_per_img=500), rcnn=dict(sampler=dict(num=128))),
)
flip = dict(
    type='RandomFlip', prob=[0.25, 0.25, 0.25], direction=['horizontal', 'vertical', 'diagonal']
)
pack_test = dict(
    type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
)
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    batch_sampler=dict(type='AspectRatioBatchSampler'),
    dataset=dict(type='CocoDataset', filter_cfg=dict(filter_empty_gt=True, min_size=32)),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='CocoDataset', test_mode=True),
)
epochs = 3
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=epochs, val_interval=epochs)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=35),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=30),
    dict(type='CosineAnnealingLR', T_max=epochs, by_epoch=True, convert_to_iter_based=True),
]
default_hooks = dict(logger=dict(type='LoggerHook', interval=10))
auto_scale_lr = dict(base_batch_size=4)
