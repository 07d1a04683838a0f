# Faster R-CNN with DLA-L around a PVTv2-B1: COCO 2017, 1x schedule, 8 GPUs with 2 images each.
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmdla'], allow_failed_imports=False)

# The attention starts as the identity, so that training starts from the features of the PVTv2.
model = dict(
    backbone=dict(
        _delete_=True,
        type='WithLayerAttention',
        backbone=dict(
            type='PyramidVisionTransformerV2',
            embed_dims=64,
            num_layers=[2, 2, 2, 2],
            init_cfg=dict(
                checkpoint='https://github.com/whai362/PVT/releases/download/v2/pvt_v2_b1.pth'
            ),
        ),
        layer_attention=dict(type='DLALight', reduction=20),
    ),
    neck=dict(in_channels=[64, 128, 320, 512]),
)

# The optimizer of the host's PVT detectors.
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=0.0001, weight_decay=0.0001))
