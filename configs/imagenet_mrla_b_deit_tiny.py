_base_ = '_base_/imagenet_deit.py'
# The release drops paths with 0.1 in every block of MRLA-B, instead of more and more.
model = dict(
    backbone=dict(
        backbone=dict(layer_cfgs=dict(drop_path_rate=0.1)),
        layer_attention=dict(type='MRLABaseTokens'),
    )
)
