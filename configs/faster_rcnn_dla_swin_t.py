# Faster R-CNN with DLA-L around a Swin-T: COCO 2017, 1x schedule, 8 GPUs with 2 images each.
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmdla'], allow_failed_imports=False)

# The attention starts as the identity, so that training starts from the features of the Swin-T.
model = dict(
    backbone=dict(
        _delete_=True,
        type='WithLayerAttention',
        backbone=dict(
            type='SwinTransformer',
            embed_dims=96,
            depths=[2, 2, 6, 2],
            num_heads=[3, 6, 12, 24],
            drop_path_rate=0.2,
            convert_weights=True,
            init_cfg=dict(
                type='Pretrained',
                checkpoint='https://github.com/SwinTransformer/storage/releases/download/v1.0.0/'
                'swin_tiny_patch4_window7_224.pth',
            ),
        ),
        layer_attention=dict(type='DLALight', reduction=20),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)

# The optimizer of the host's Swin detectors.
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=0.0001, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(
        custom_keys={
            'relative_position_bias_table': dict(decay_mult=0.0),
            'norm': dict(decay_mult=0.0),
            'lambda_': dict(decay_mult=0.0),
        }
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', begin=0, end=12, by_epoch=True, milestones=[8, 11], gamma=0.1),
]
