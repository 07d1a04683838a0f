# Faster R-CNN with a DLA-L ResNet-101.
_base_ = './faster_rcnn_dla_r50.py'

model = dict(
    backbone=dict(depth=101, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101'))
)
