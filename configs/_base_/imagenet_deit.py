# ImageNet-1K and the recipe of DeiT as the MRLA release trains it: 1024 images a step, 300 epochs.
_base_ = 'mmpretrain::deit/deit-tiny_4xb256_in1k.py'
custom_imports = dict(imports=['mmdla'], allow_failed_imports=False)

# Over the host's recipe: drop path, repeated augmentation, five warm-up epochs, an average of the
# weights, no decay of lambda, no clipping of gradients.
model = dict(
    backbone=dict(
        _delete_=True,
        type='WithLayerAttention',
        backbone=dict(type='VisionTransformer', arch='deit-tiny', drop_path_rate=0.1),
        zero_init_attention=False,
    )
)
train_dataloader = dict(sampler=dict(type='RepeatAugSampler'))
optim_wrapper = dict(
    clip_grad=None, paramwise_cfg=dict(custom_keys={'.lambda_': dict(decay_mult=0.0)})
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=5),
]
custom_hooks = [dict(type='EMAHook', momentum=4e-5, priority='ABOVE_NORMAL')]
