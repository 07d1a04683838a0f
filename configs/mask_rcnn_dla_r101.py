# Mask R-CNN with a DLA-L ResNet-101.
_base_ = './mask_rcnn_dla_r50.py'

model = dict(
    backbone=dict(depth=101, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101'))
)
