"""Names of the releases of KCLA and RLA, whose state crosses the stages, translated into ours."""

import re

from torch import Tensor

STAGE = (
    (r'^stages\.(\d)\.', lambda m: f'layer{int(m[1]) + 1}.'),
    (r'^(layer\d)\.layers\.', r'\1.'),
)
KCLA = (
    *STAGE,
    (r'^(layer\d)\.(\d+)\.kcla\.', r'\1.attention.\2.'),
    (r'^(layer\d\.attention)\.(\d+)\.', r'\1.blocks.\2.'),
    (r'\.norm_d$', '.constants'),
    (r'\.adjust_channel\.', '.restart.resize.'),
    (r'\.u_Wk\.', '.restart.key.'),
    (r'\.u_bn\.', '.restart.norm.'),
    (r'\.bn_attention\.', '.norm.'),
    (r'\.head_att\.', '.mix.'),
    (r'\.Wq\.', '.query.'),
    (r'\.Wk\.', '.key.'),
    (r'\.Wv\.', '.value.'),
)
RLA = (
    *STAGE,
    (r'^(layer\d)\.(\d+)\.eca\.', r'\1.attention.eca.\2.'),
    (r'^conv_outs\.(\d)\.', lambda m: f'layer{int(m[1]) + 1}.attention.project.'),
    (r'^recurrent_convs\.(\d)\.', lambda m: f'layer{int(m[1]) + 1}.attention.recurrent.'),
    (r'^stage_bns\.(\d)\.', lambda m: f'layer{int(m[1]) + 1}.attention.norms.'),
)


def is_released_carried(state: dict[str, Tensor]) -> bool:
    """Whether the names are those of a released KCLA or RLA."""
    return _is_rla(state) or any(name.endswith('.head_att.weight') for name in state)


def convert_released_carried(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Translate the names, without what never reaches the output."""
    rules = RLA if _is_rla(state) else KCLA
    converted = {}
    stages = [int(m[1]) for name in state if (m := re.match(r'conv_outs\.(\d)\.', name))]
    norms = [int(m[2]) for n in state if (m := re.match(r'stage_bns\.(\d)\.(\d+)\.', n))
             and int(m[1]) == max(stages)]  # fmt: skip
    for name, value in state.items():
        if rules is RLA and 'bn2.weight' not in state:  # no classifier reads the last state
            if name.startswith(f'stage_bns.{max(stages)}.{max(norms)}.'):
                continue
        new = name
        for pattern, replacement in rules:
            new = re.sub(pattern, replacement, new)
        if rules is RLA and name.startswith('bn2.'):
            new = f'layer{max(stages) + 1}.attention.output_norm.{name[4:]}'
        if '.restart.' in new and new.startswith('layer1.attention.blocks.0.'):
            continue  # nothing is carried to the first block
        if '.restart.resize.' in new and '.blocks.0.' not in new:
            continue  # nor resized within a stage
        converted[new] = value.flatten() if new.endswith('.constants') else value
    return converted


def _is_rla(state: dict[str, Tensor]) -> bool:
    return any(name.startswith('recurrent_convs.') for name in state)
