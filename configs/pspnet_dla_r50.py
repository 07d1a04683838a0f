# PSPNet with a DLA-L ResNet-50: Cityscapes, 80k iterations, 4 GPUs with 2 images each.
_base_ = [
    '_base_/mmdla.py',
    'mmseg::pspnet/pspnet_r50-d8_4xb2-80k_cityscapes-512x1024.py',
]

# ResNetV1c, as in the base. It starts as the ResNet whose weights it loads.
model = dict(
    backbone=dict(
        type='DLAResNetV1c',
        zero_init_attention=True,
        layer_attention=dict(type='DLALight', reduction=20),
    )
)
