# Rotated RetinaNet with a DLA-L ResNet-50: DOTA, 1x schedule, 1 GPU with 2 images.
_base_ = 'mmrotate::rotated_retinanet/rotated-retinanet-rbox-le90_r50_fpn_1x_dota.py'
custom_imports = dict(imports=['mmdla'], allow_failed_imports=False)

# It starts as the ResNet whose weights it loads.
model = dict(
    backbone=dict(
        type='DLAResNet',
        zero_init_attention=True,
        layer_attention=dict(type='DLALight', reduction=20),
    )
)
