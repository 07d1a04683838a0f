"""Arguments of the backbones, the layer attentions and the DSU: right ones, and wrong values."""

import copy
import math

from hypothesis import strategies as st

from mmdla.models.layer_attention.build import OURS

NAN, INF = math.nan, math.inf
NOT_INTEGERS = [True, 1.0, 2.5, NAN, INF, '1', '', b'1', [1], (), {}, {1: 2}, object()]
NOT_BOOLS = [0, 1, 'True', '', [], 1.0, NAN, {}, object()]
NOT_SEQUENCES = [0, 1, '1222', b'\1\2\2\2', {1, 2}, NAN, {'a': 1}, object()]


def integers_below(least: int) -> list:
    return [*NOT_INTEGERS, least - 1, least - 100]


WRONG_CFGS = [0, 1, '', 'BN', [], (), {}, True, NAN, object(), {'typ': 'BN'}, {'type': None},
              {'type': ''}, {'type': 3}, {'type': 'NoSuchThing'}, {'type': 'no.such.thing'},
              {'type': 'BN', 'extra': 1}, {'type': 'BN', 'eps': NAN}, {'type': 'Linear'}]  # fmt: skip
WRONG_NORMS = [{'type': 'BN', 'eps': -1e-5}, {'type': 'BN', 'eps': 'x'},
               {'type': 'BN', 'momentum': 2}, {'type': 'BN', 'momentum': '1'},
               {'type': 'BN', 'requires_grad': 1}, {'type': 'BN', 'affine': 'no'},
               {'type': 'BN1d'}, {'type': 'BN3d'}, {'type': 'IN1d'}, {'type': 'GN'},
               {'type': 'GN', 'num_groups': 0}, {'type': 'GN', 'num_groups': 3},
               {'type': 'GN', 'num_groups': None}, {'type': 'GN', 'num_groups': 1.5},
               {'type': 'Conv2d'}, {'type': 'ReLU'}]  # fmt: skip
WRONG_ENTRIES = [(1, 2, None, 1), (1, True, 1, 1), (1, 1.0, 1, 1), (1, NAN, 1, 1), (0, 1, 1, 1),
                 (1, -1, 1, 1), ('1', 1, 1, 1), (), (1,) * 5, [1] * 40, [[1], 1, 1, 1]]  # fmt: skip

# for every argument values that no combination allows
WRONG_IN_ATTENTION = {
    'channels': [0, 3],  # those of the stage, not to be given
    'num_blocks': [0, 3],
    'reduction': [*integers_below(1), None, 10**6],
    'head_channels': [*integers_below(1), None, 10**6, 3],
    'kernel_size': [*integers_below(1), 2, 4],
    'drop_path_rate': [1, 1.0, -0.1, 2, NAN, INF, -INF, '0.1', None, True, [0.1]],
    'ops': ['', 'slow', 1, None, True, NAN, ['auto']],
    'hidden_channels': [*integers_below(1), None],
    'restart_block': integers_below(1),
    'eca': [*NOT_BOOLS, None],
    'append_state': [*NOT_BOOLS, None],
    'previous_channels': [None, 8],  # so are these four
    'stride': [1, 2],
    'last': [True, False],
    'first_convs': [(), []],
    'form': ['', 'other', 1, None, True, NAN, ['released']],
    'context': ['', 'other', 1, None, True, NAN, ['sample']],
    'norm_cfg': [*WRONG_CFGS, *WRONG_NORMS],
    'init_cfg': [0, '', 'Kaiming', {}, {'type': 'NoSuchThing'}, {'type': 'Constant'}, [3], NAN,
                 {'type': 'Constant', 'val': NAN, 'layer': 'Conv2d'}],
}  # fmt: skip
TAKES = {
    'DLALight': ['reduction', 'head_channels', 'kernel_size', 'drop_path_rate', 'ops', 'form', 'context'],
    'DLABase': ['reduction', 'head_channels', 'kernel_size', 'drop_path_rate', 'ops', 'form', 'context', 'refresh'],
    'MRLALight': ['head_channels', 'kernel_size', 'drop_path_rate', 'ops'],
    'MRLABase': ['head_channels', 'kernel_size', 'drop_path_rate', 'ops'],
    'DIALSTM': ['reduction'],
    'SE': ['reduction'],
    'ECA': ['kernel_size'],
    'KCLA': ['head_channels', 'kernel_size', 'drop_path_rate', 'restart_block'],
    'RLA': ['hidden_channels', 'eca', 'append_state'],
}  # fmt: skip
assert set(TAKES) == set(OURS)
WRONG_IN_ATTENTION['refresh'] = WRONG_IN_ATTENTION['context']
OF_STAGE = {
    'KCLA': ['previous_channels', 'stride'],
    'RLA': ['previous_channels', 'stride', 'last', 'first_convs'],
}
NEEDED = dict(reduction=1, head_channels=4)  # for stages of four channels
COMMON = ['norm_cfg', 'init_cfg', 'channels', 'num_blocks']

WRONG_IN_BACKBONE = {
    'depth': [*integers_below(1), None, 19, 51, 10**9, '50', (18,)],
    'in_channels': [*integers_below(1), None],
    'stem_channels': integers_below(1),
    'base_channels': [*integers_below(1), None],
    'expansion': integers_below(1),
    'num_stages': [*integers_below(1), None, 5, 100],
    'strides': [*NOT_SEQUENCES, *WRONG_ENTRIES, None],
    'dilations': [*NOT_SEQUENCES, *WRONG_ENTRIES, None],
    'out_indices': [*NOT_SEQUENCES, (), [], (4,), (-1,), (0, 0), (1, 0), (True,), (0.0,), ('0',), (None,), range(9)],
    'style': ['', 'tensorflow', 1, None, True, NAN, ['pytorch']],
    'deep_stem': [*NOT_BOOLS, None],
    'avg_down': [*NOT_BOOLS, None],
    'groups': [*integers_below(1), None],
    'base_width': [*integers_below(1), None],
    'width_per_group': integers_below(1),
    'frozen_stages': [*integers_below(-1), None, 5, 100],
    'freeze_attention': [*NOT_BOOLS, None],
    'conv_cfg': [*WRONG_CFGS, {'type': 'Conv1d'}, {'type': 'Conv3d'}, {'type': 'BN'}, {'type': 'Conv2d', 'bias': True}],
    'norm_cfg': [*WRONG_CFGS, *WRONG_NORMS],
    'norm_eval': NOT_BOOLS,
    'dcn': [*WRONG_CFGS, {'type': 'DCNv2', 'deform_groups': 3}, {'type': 'DCNv2', 'fallback_on_stride': 1}],
    'stage_with_dcn': [*NOT_SEQUENCES, (1, 0, 0, 0), ('False',) * 4, (None,) * 4, (True,) * 4, (0.0,) * 4],
    'plugins': [0, 1, '', 'plugin', {}, {'cfg': 1}, [1], [None], [{}], [{'cfg': {'type': 'ContextBlock'}}],
                [{'cfg': {'type': 'NoSuchThing'}, 'position': 'after_conv1'}],
                [{'cfg': {'type': 'ContextBlock', 'ratio': NAN}, 'position': 'after_conv1'}],
                [{'cfg': {'type': 'ContextBlock', 'ratio': -1.0}, 'position': 'after_conv1'}],
                [{'cfg': {'type': 'ContextBlock', 'ratio': 0.5, 'pooling_type': 'x'}, 'position': 'after_conv1'}],
                [{'cfg': {'type': 'ContextBlock', 'ratio': 0.5}, 'position': 'after_conv4'}],
                [{'cfg': {'type': 'ContextBlock', 'ratio': 0.5}, 'position': 'after_conv1', 'stage': 1}],
                [{'cfg': {'type': 'ContextBlock', 'ratio': 0.5}, 'position': 'after_conv1', 'stages': ()}],
                [{'cfg': {'type': 'ContextBlock', 'ratio': 0.5}, 'position': 'after_conv1', 'stages': (1, 1, 1, 1)}]],
    'multi_grid': [*NOT_SEQUENCES, 1.0, '', (), {}, object(), (0,), (0, 1), (1, 1.0), (1,) * 9],
    'contract_dilation': [*NOT_BOOLS, None],
    'with_cp': [*NOT_BOOLS, None],
    'zero_init_residual': [*NOT_BOOLS, None],
    'drop_path_rate': [1, 1.0, -0.1, 2, NAN, INF, -INF, '0.1', None, True, [0.1]],
    'layer_attention': [*WRONG_CFGS, {'type': 'DSU'}, {'type': 'DLAResNet'}, {'type': 'DLALight', 'reducton': 2},
                        {'type': 'LayerAttention', 'channel': 3}, {'type': object}],
    'zero_init_attention': [*NOT_BOOLS, None],
    'pretrained': [0, 1, '', b'x', True, [], {}, NAN],
    'init_cfg': [0, 1, '', 'Kaiming', b'x', {}, {'type': 'NoSuchThing'}, {'type': None}, [3], [None], [[]], NAN,
                 {'type': 'Constant'}, {'type': 'Constant', 'val': NAN, 'layer': 'Conv2d'},
                 {'type': 'Constant', 'val': 1, 'layer': 3}, {'type': 'Pretrained'},
                 {'type': 'Pretrained', 'checkpoint': None}, {'type': 'Pretrained', 'checkpoint': ''},
                 {'type': 'Pretrained', 'checkpoint': 'x', 'prefix': 3}, {'type': 'Pretrained', 'checkpoint': 'x', 'other': 3},
                 [{'type': 'Pretrained', 'checkpoint': 'x'}] * 2],
    'no_such_argument': [None, 1],
}  # fmt: skip
WRONG_IN_DSU = {
    'channels': [*integers_below(1), None],
    'reduction': [*integers_below(1), None, 10**6],
    'form': WRONG_IN_ATTENTION['form'],
    'output_gate': [*NOT_BOOLS, None],
    'init_cfg': WRONG_IN_ATTENTION['init_cfg'],
    'no_such_argument': [None, 1],
}

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
NORMS = [None, {'type': 'BN'}, {'type': 'BN', 'requires_grad': False}, {'type': 'BN', 'eps': 1e-3, 'momentum': None},
         {'type': 'BN', 'affine': False}, {'type': 'BN', 'track_running_stats': False},
         {'type': 'GN', 'num_groups': 2}, {'type': 'IN'}, {'type': 'SyncBN'}]  # fmt: skip


@st.composite
def attentions(draw, least_channels: int) -> dict | None:
    """A layer attention for stages of at least these (a power of two) channels."""
    kind = draw(st.sampled_from([None, *sorted(TAKES), 'DLALight', 'DLABase']))
    if kind is None:
        return None
    powers = [2**i for i in range(least_channels.bit_length())]
    right = dict(
        reduction=st.sampled_from([*range(1, min(least_channels, 9) + 1), least_channels]),
        head_channels=st.sampled_from(powers),
        kernel_size=st.sampled_from([None, 1, 3, 5, 9, 2 * least_channels + 1]),
        drop_path_rate=st.sampled_from([0, 0.0, 0.1, 0.9]),
        ops=st.sampled_from(['auto', 'reference']),
        form=st.sampled_from(['released', 'shared']),
        context=st.sampled_from(['sample', 'first']),
        refresh=st.sampled_from(['released', 'residual']),
        hidden_channels=st.sampled_from([2, 4, 32]),
        restart_block=st.sampled_from([None, 1, 2, 11]),
        eca=st.booleans(),
        append_state=st.booleans(),
    )
    if kind == 'KCLA':  # which makes a head of half an old one
        right['head_channels'] = st.sampled_from([None, *powers[1:]])
    needed = {name for name in TAKES[kind] if name in ('reduction', 'head_channels')}
    names = needed | {name for name in TAKES[kind] if draw(st.booleans())}
    cfg = {name: draw(right[name]) for name in sorted(names)}
    if draw(st.integers(0, 4)) == 0:
        cfg['norm_cfg'] = copy.deepcopy(draw(st.sampled_from(NORMS)))
    return dict(type=kind, **cfg)


@st.composite
def backbones(draw, cifar: bool = False) -> dict:
    """Arguments that suit each other."""
    if cifar:
        block = draw(st.sampled_from(['basic', 'bottleneck']))
        blocks, most = draw(st.sampled_from([1, 1, 2, 3])), 3
        args = dict(depth=(9 if block == 'bottleneck' else 6) * blocks + 2, block=block)
    else:
        block = draw(st.sampled_from(['basic', 'basic', 'bottleneck']))
        depths, most = dict(basic=[18, 18, 18, 34], bottleneck=[50]), 4
        args = dict(depth=draw(st.sampled_from(depths[block])))
    bottleneck = block == 'bottleneck'
    base = args['base_channels'] = draw(st.sampled_from([4, 8, 16]))
    stages = draw(st.sampled_from([most, most, *range(1, most)]))
    flip = st.integers(0, 3).map(lambda n: n == 0)  # each option in a quarter of the cases

    def sometimes(name: str, values) -> None:
        if draw(flip):
            args[name] = draw(st.sampled_from(list(values)))

    if stages != most or draw(flip):
        args['num_stages'] = stages
        args['strides'] = tuple(draw(st.sampled_from([1, 2, 3])) for _ in range(stages))
        args['dilations'] = [draw(st.sampled_from([1, 1, 2, 3])) for _ in range(stages)]
    sometimes('contract_dilation', [True, False])
    if draw(flip):
        last = blocks if cifar else BLOCKS[args['depth']][stages - 1]
        args['multi_grid'] = [draw(st.sampled_from([1, 2, 3])) for _ in range(last)]
    sometimes('in_channels', [1, 3, 4])
    sometimes('stem_channels', [4, 8, 12, None])
    if draw(flip):
        chosen = draw(st.sets(st.integers(0, stages - 1), min_size=1))
        args['out_indices'] = draw(st.sampled_from([None, tuple(sorted(chosen))]))
    sometimes('style', ['pytorch', 'caffe'])
    sometimes('deep_stem', [False] if cifar else [True, False])
    sometimes('avg_down', [True, False])
    expansion = 4 if bottleneck else 1
    if draw(flip):
        expansion = args['expansion'] = draw(st.sampled_from([1, 2, 4]))
    if bottleneck and draw(flip):
        args['groups'] = draw(st.sampled_from([1, 2, 4]))
        args[draw(st.sampled_from(['base_width', 'width_per_group']))] = draw(
            st.sampled_from([base, 2 * base])
        )
    sometimes('frozen_stages', range(-1, stages + 1))
    sometimes('freeze_attention', [True, False])
    sometimes('conv_cfg', [None, {'type': 'Conv2d'}, {'type': 'Conv'}, {'type': 'ConvWS'}])
    sometimes('norm_cfg', NORMS)
    sometimes('norm_eval', [True, False, None])
    if bottleneck and draw(flip):
        args['dcn'] = draw(
            st.sampled_from([{'type': 'DCN'}, {'type': 'DCNv2', 'deform_groups': 1}])
        )
        args['stage_with_dcn'] = [i == stages - 1 for i in range(stages)]
    if bottleneck and draw(flip):
        position = draw(st.sampled_from(['after_conv1', 'after_conv2', 'after_conv3']))
        plugin = dict(cfg=dict(type='ContextBlock', ratio=0.5), position=position)
        if draw(st.booleans()):
            plugin['stages'] = [draw(st.booleans()) for _ in range(stages)]
        args['plugins'] = [plugin]
    sometimes('with_cp', [True, False])
    sometimes('zero_init_residual', [True, False])
    sometimes('drop_path_rate', [0, 0.2, 0.5])
    sometimes('init_cfg', [None, [], {'type': 'Kaiming', 'layer': 'Conv2d'},
                           [{'type': 'Normal', 'std': 0.1, 'layer': ['Conv2d', 'Linear']}]])  # fmt: skip
    args['layer_attention'] = draw(attentions(base * expansion))
    norm = (args['layer_attention'] or {}).get('norm_cfg', args.get('norm_cfg')) or {}
    learns = norm.get('affine', norm.get('type', 'BN') != 'IN')
    attention = args['layer_attention'] or {}
    kind, scales = attention.get('type'), attention.get('eca') or attention.get('append_state')
    adds = kind in ('KCLA', 'RLA') and not scales
    if adds or (kind in ('DLALight', 'MRLALight', 'DLABase', 'MRLABase') and learns):
        sometimes('zero_init_attention', [True, False])
    return copy.deepcopy(args)


@st.composite
def units(draw) -> dict:
    """Arguments of the DSU that suit each other."""
    channels = draw(st.sampled_from([1, 2, 3, 8, 17, 32]))
    args = dict(channels=channels, reduction=draw(st.integers(1, channels)))
    if draw(st.booleans()):
        args['form'] = draw(st.sampled_from(['released', 'shared']))
    if draw(st.booleans()):
        args['output_gate'] = draw(st.booleans())
    return args


@st.composite
def spoiled(draw, right, wrong: dict, names=None) -> tuple[dict, str]:
    """Right arguments with one wrong value, and its name."""
    args = draw(right)
    name = draw(st.sampled_from(sorted(names or wrong)))
    args[name] = draw(st.sampled_from(wrong[name]))
    return args, name


@st.composite
def spoiled_attentions(draw) -> tuple[dict, str]:
    """Right arguments of a backbone, with one wrong value in its layer attention."""
    args = draw(backbones(cifar=draw(st.booleans())))
    if args['layer_attention'] is None:
        args['layer_attention'] = dict(type='SE', reduction=1)
    args.pop('zero_init_attention', None)
    kind = args['layer_attention']['type']
    names = TAKES[kind] + OF_STAGE.get(kind, []) + COMMON
    args['layer_attention'], name = draw(
        spoiled(st.just(args['layer_attention']), wrong_in_attention(kind), names)
    )
    return args, name


def wrong_in_attention(kind: str) -> dict:
    """Wrong values of the arguments of a kind."""
    wrong = dict(WRONG_IN_ATTENTION)
    if kind == 'KCLA':  # None stands for a width that divides the channels
        wrong['head_channels'] = [v for v in wrong['head_channels'] if v is not None]
    return wrong


@st.composite
def mixtures(draw, cifar: bool) -> dict:
    """Arguments of two right sets, and now and then a wrong one: they may suit each other or not."""
    args = draw(backbones(cifar=cifar))
    for name, value in draw(backbones(cifar=cifar)).items():
        if draw(st.booleans()):
            args[name] = value
    if draw(st.integers(0, 2)) == 0:
        name = draw(st.sampled_from(sorted(WRONG_IN_BACKBONE)))
        args[name] = draw(st.sampled_from(WRONG_IN_BACKBONE[name]))
    return args
