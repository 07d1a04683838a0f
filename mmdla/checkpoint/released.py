"""Names of the authors' releases (DLA, MRLA before it and others), translated into ours."""

import re

from torch import Tensor

from .carried import (
    convert_released_kcla,
    convert_released_rla,
    is_released_kcla,
    is_released_rla,
)
from .names import renamed
from .vit import convert_released_vit, is_released_vit

# Applied in order, each to what the one before left.
RULES = (
    (r'^stages\.(\d)\.', lambda m: f'layer{int(m[1]) + 1}.'),
    (r'^(layer\d)\.(?:layers|ModuleList)\.', r'\1.'),
    (r'^(layer\d)\.lstm\.', r'\1.attention.dsu.'),
    (r'^(layer\d)\.(?:excite|extict)\.', r'\1.attention.extract.'),
    # one module per block, in a list of the stage (DLA) or in the block (MRLA, SE, ECA)
    (r'^(layer\d)\.attention\.(\d+)\.(?=layer_attention|bn_)', r'\1.attention.blocks.\2.'),
    (r'^(layer\d)\.(\d+)\.(?=mrla|bn_mrla|se\.|eca\.)', r'\1.attention.blocks.\2.'),
    (r'\.(?:se\.fc|eca)\.', '.'),
    (r'\.(?:bn_layer_attention|bn_mrla)\.', '.norm.'),
    (r'\.(?:(?:layer_attention|mrla|mla|la)\.)+', '.'),  # mla, la: files of MRLA's first release
    (r'\.lambda_t$', '.lambda_'),
    (r'\.Wq\.weight$', '.query.weight'),
    (r'\.Wk\.weight$', '.key.weight'),
    (r'\.Wv\.weight$', '.value.weight'),
    (r'\bw_ih\.0\.seq\.', 'from_y.'),
    (r'\bw_hh\.0\.seq\.', 'from_h.'),
)


def convert_released(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Translate a released backbone or classifier, or a lone recurrent unit.

    Args:
        state (dict): The released state dict.

    Returns:
        dict: The same tensors, in the same order, without those that no output depends on, under
        the names of :class:`~mmdla.DLAResNet` (``fc`` stays), of
        :class:`~mmdla.WithLayerAttention` around a VisionTransformer (the head is ``fc``) or of
        :class:`~mmdla.DSU`.

    Raises:
        CheckpointError: Two of its names mean the same weight.
    """
    if is_released_vit(state):
        return convert_released_vit(state)
    if is_released_kcla(state):
        return convert_released_kcla(state)
    if is_released_rla(state):
        return convert_released_rla(state)
    timm_stem = 'conv1.0.weight' in state
    return renamed((_translate(name, timm_stem), v) for name, v in state.items())


def _translate(name: str, timm_stem: bool) -> str:
    if timm_stem:
        name = re.sub(r'^conv1\.', 'stem.', re.sub(r'^bn1\.', 'stem.7.', name))
    for pattern, replacement in RULES:
        name = re.sub(pattern, replacement, name)
    return name
