# As released: 120 epochs without warm-up, and the classifier reads the recurrent map too.
_base_ = '_base_/imagenet.py'
model = dict(
    backbone=dict(layer_attention=dict(type='RLA', append_state=True)),
    head=dict(in_channels=2048 + 32),
)
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, milestones=[30, 60, 90], gamma=0.1)]
train_cfg = dict(max_epochs=120)
