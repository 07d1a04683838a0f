# Top-down heatmaps with a DLA-L ResNet-50: COCO keypoints, 210 epochs, 8 GPUs with 64 images each.
_base_ = 'mmpose::body_2d_keypoint/topdown_heatmap/coco/td-hm_res50_8xb64-210e_coco-256x192.py'
custom_imports = dict(imports=['mmdla'], allow_failed_imports=False)

# It starts as the ResNet whose weights it loads.
model = dict(
    backbone=dict(
        type='DLAResNet',
        zero_init_attention=True,
        layer_attention=dict(type='DLALight', reduction=20),
    )
)
