"""Layer attention around the backbones of MMDetection and MMPretrain, by config alone.

A host backbone is built by its own class and keeps its forward pass, its methods and the names of
its parameters. Three things are added:

1. ``stages.py`` finds the stages: containers of blocks that keep the shape of what they are given.
   ``res_layers`` (RegNet, Res2Net, ResNeSt and the other ResNets), ``stages[i]`` (ConvNeXt),
   ``stages[i].blocks`` (Swin), ``layers[i][1]`` (PVT), and all ``layers`` (VisionTransformer).
   A block with a ``downsample`` changes the shape and is passed over.
2. ``blocks.py`` has the host's loop over its blocks call each together with the layer attention
   behind it: ``x`` is what the block returned, ``shortcut`` what it was given, the state is local
   to the forward pass. Tokens (B, N, C) are seen as maps (B, C, H, W), without a copy.
3. ``backbone.py`` adds one module, ``layer_attentions``, with the attention of stage ``i`` under
   ``layer_attentions.i``; every other name is the host's, so the host's checkpoints load.

``tokens.py`` has MRLA as it was published for vision transformers, with the class token.
"""

from .backbone import WithLayerAttention
from .tokens import MRLABaseTokens, MRLALightTokens, TokenAttention

__all__ = ['MRLABaseTokens', 'MRLALightTokens', 'TokenAttention', 'WithLayerAttention']
