# RetinaNet with a DLA-L ResNet-50: COCO 2017, 1x schedule, 8 GPUs with 2 images each.
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmdla'], allow_failed_imports=False)

# From the base: torchvision's ResNet-50 weights, norm_eval=True, and frozen_stages=1, which
# freezes the stem and the first stage but not the attention there: that is new and must learn.
# It starts as the identity, so that training starts from the features of the ResNet.
model = dict(
    backbone=dict(
        type='DLAResNet',
        zero_init_attention=True,
        layer_attention=dict(type='DLALight', reduction=20),
    )
)
