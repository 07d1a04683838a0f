# PSPNet with a DLA-L ResNet-50: ADE20K, 160k iterations, 4 GPUs with 4 images each.
_base_ = [
    '_base_/mmdla.py',
    'mmseg::pspnet/pspnet_r50-d8_4xb4-160k_ade20k-512x512.py',
]

# ResNetV1c, as in the base. It starts as the ResNet whose weights it loads.
model = dict(
    backbone=dict(
        type='DLAResNetV1c',
        zero_init_attention=True,
        layer_attention=dict(type='DLALight', reduction=20),
    )
)
