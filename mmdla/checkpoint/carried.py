"""Names of the releases of KCLA and RLA, whose state crosses the stages, translated into ours."""

import re
from collections.abc import Iterator

from torch import Tensor

from .names import renamed

State = dict[str, Tensor]

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
NORM = re.compile(r'stage_bns\.(\d)\.(\d+)\.')
FIRST_CONV = re.compile(r'(layer\d)\.(\d+)\.conv1\.weight')


def is_released_kcla(state: State) -> bool:
    """Whether the names are those of a released KCLA."""
    return any(name.endswith('.head_att.weight') for name in state)


def is_released_rla(state: State) -> bool:
    """Whether the names are those of a released RLA."""
    return any(name.startswith('recurrent_convs.') for name in state)


def convert_released_kcla(state: State) -> State:
    """Translate the names, without what never reaches the output."""
    return renamed(_kcla_entries(state))


def _kcla_entries(state: State) -> Iterator[tuple[str, Tensor]]:
    for name, value in state.items():
        new = _translate(name, KCLA)
        if '.restart.' in new and new.startswith('layer1.attention.blocks.0.'):
            continue  # nothing is carried to the first block
        if '.restart.resize.' in new and '.blocks.0.' not in new:
            continue  # nor resized within a stage
        yield new, value.flatten() if new.endswith('.constants') else value


def convert_released_rla(state: State) -> State:
    """Translate the names, without what never reaches the output.

    The first convolution of a block is cut into that of its input and that of the recurrent map.
    """
    return renamed(_rla_entries(state))


def _rla_entries(state: State) -> Iterator[tuple[str, Tensor]]:
    norms = [(int(m[1]), int(m[2])) for name in state if (m := NORM.match(name))]
    last = max(norms, default=(0, 0))
    convs = [v for name, v in state.items() if name.startswith('recurrent_convs.')]
    hidden = next((len(v) for v in convs if v.ndim == 4), 0)
    for name, value in state.items():
        if 'bn2.weight' not in state and name.startswith('stage_bns.{}.{}.'.format(*last)):
            continue  # no classifier reads the last state
        new = _translate(name, RLA)
        if name.startswith('bn2.'):
            new = f'layer{last[0] + 1}.attention.output_norm.{name.removeprefix("bn2.")}'
        match = FIRST_CONV.fullmatch(new)
        if match and value.ndim == 4 and 0 < hidden < value.shape[1]:
            if match.groups() != ('layer1', '0'):  # which reads zeros
                yield '{}.attention.read.{}.weight'.format(*match.groups()), value[:, -hidden:]
            value = value[:, :-hidden]
        yield new, value


def _translate(name: str, rules: tuple) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
