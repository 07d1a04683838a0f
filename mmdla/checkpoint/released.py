"""Names of the authors' releases, translated into ours."""

import re

from torch import Tensor

# In order; each pattern must match the whole name that the one before left.
RULES = (
    (r'(layer\d)\.layers\.(.+)', r'\1.\2'),
    (r'(layer\d)\.lstm\.(.+)', r'\1.attention.dsu.\2'),
    (r'(layer\d)\.(?:excite|extict)\.(.+)', r'\1.attention.extract.\2'),
    (r'(layer\d)\.attention\.(\d+)\.(layer_attention|bn_layer_attention)\.(.+)', None),
    (r'(.*\b)w_ih\.0\.seq\.(.+)', r'\1from_y.\2'),
    (r'(.*\b)w_hh\.0\.seq\.(.+)', r'\1from_h.\2'),
)
HEADS = {
    'lambda_t': 'lambda_',
    'mrla.Wq.weight': 'query.weight',
    'mrla.Wk.weight': 'key.weight',
    'mrla.Wv.weight': 'value.weight',
}


def convert_released(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Translate a released DLA-L checkpoint (ImageNet or detection) or a lone recurrent unit.

    Args:
        state (dict): The released state dict.

    Returns:
        dict: The same tensors under the names of :class:`~mmdla.DLAResNet` (``fc`` stays) or of
        :class:`~mmdla.DSU`.
    """
    return {_translate(name): v for name, v in state.items()}


def _translate(name: str) -> str:
    for pattern, replacement in RULES:
        match = re.fullmatch(pattern, name)
        if match is None:
            continue
        if replacement is None:
            stage, block, part, rest = match.groups()
            rest = HEADS.get(rest, rest) if part == 'layer_attention' else f'norm.{rest}'
            name = f'{stage}.attention.blocks.{block}.{rest}'
        else:
            name = match.expand(replacement)
    return name
