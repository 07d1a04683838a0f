"""Draw random programs: what people do with a ResNet, in any combination."""

from dataclasses import replace
from typing import Any

from attention_lists import FUSED, OTHERS
from hypothesis import strategies as st
from program_models import module_names
from programs import (
    GLOBAL,
    Backward,
    Forward,
    Grad,
    Hook,
    Mode,
    Penalty,
    Program,
    Ref,
    Setup,
    Step,
    ZeroGrad,
)

OPTIONS = dict(
    form=('released', 'shared'), context=('sample', 'first'), refresh=('released', 'residual')
)

LOOKING = (
    'forward', 'forward_kwargs', 'forward_pre', 'forward_pre_kwargs', 'full_backward',
    'full_backward_pre', 'tensor_hook', 'retain_grad', 'call_counted',
)  # fmt: skip
CHANGING = (
    'detach_input', 'scale_input', 'shift_input', 'detach_output', 'scale_output', 'shift_output',
    'scale_gradient', 'scale_grad_input', 'checkpoint', 'no_grad',
)  # fmt: skip


@st.composite
def programs(draw) -> Program:
    """Draw a program."""
    plain = draw(_models())
    names = module_names(plain)
    hooks = draw(st.lists(_hooks(names), max_size=3))
    captures = draw(st.integers(0, 2)) == 0
    if captures:  # maps in the middle of a stage, between which gradients are taken
        places = st.one_of(*(st.sampled_from(names[kind]) for kind in ('block', 'block', 'leaf')))
        kinds = st.sampled_from(('forward_pre', 'forward'))
        hooks = draw(st.lists(st.builds(Hook, kinds, places), min_size=2, max_size=5)) + hooks[:1]
    if draw(st.integers(0, 9)) == 0:
        hooks.append(Hook(draw(st.sampled_from(GLOBAL))))
    setup = draw(_setups(plain, names))
    return Program(setup, tuple(hooks), draw(_partial_steps() if captures else _steps()))


def _hooks(names: dict[str, tuple[str, ...]]):
    everywhere = tuple(kind for kind in names if names[kind])
    large = tuple(kind for kind in ('block', 'stage', 'attention') if names[kind])

    def on(kinds, wheres):
        return st.sampled_from(wheres).flatmap(
            lambda where: st.builds(Hook, st.sampled_from(kinds), st.sampled_from(names[where]))
        )

    # a forward under no_grad of a single layer is as rare as one that is recomputed
    return st.one_of(on(LOOKING, everywhere), on(CHANGING, large), on(CHANGING[:-2], everywhere))


@st.composite
def _models(draw) -> Setup:
    """Draw what decides which modules there are."""
    attention = draw(st.sampled_from((*FUSED * 3, *OTHERS, None)))
    options: list[tuple[str, Any]] = []
    if attention in ('DLALight', 'DLABase'):
        options += [(name, draw(st.sampled_from(OPTIONS[name]))) for name in ('form', 'context')]
    if attention == 'DLABase':
        options.append(('refresh', draw(st.sampled_from(OPTIONS['refresh']))))
    depth = draw(st.sampled_from((18, 50)))
    return Setup(
        attention, tuple(options), depth, norm=draw(st.sampled_from(('BN', 'BN', 'BN', 'GN')))
    )


@st.composite
def _setups(draw, model: Setup, names: dict[str, tuple[str, ...]]) -> Setup:
    flag = st.booleans()
    some = st.lists(st.sampled_from([n for found in names.values() for n in found]), max_size=3)
    rarely = draw(st.integers(0, 3)) == 0
    return replace(
        model,
        batch=draw(st.integers(1, 3)),
        size=draw(st.sampled_from(((32, 32), (40, 56), (64, 32), (33, 47)))),
        training=draw(flag),
        norm_eval=draw(flag),
        with_cp=rarely and draw(flag),
        drop_path=0.3 if rarely and draw(flag) else 0.0,
        input_grad=draw(flag),
        frozen=tuple(draw(some)) if draw(flag) else (),
        evaluated=tuple(draw(some)) if rarely else (),
        # PyTorch ends in a segmentation fault in the backward pass of a GroupNorm in channels_last
        channels_last=model.norm == 'BN' and draw(flag),
    )


def _refs(kinds: tuple[str, ...], largest: int, forwards=st.integers(0, 1)):  # noqa: B008
    return st.lists(
        st.builds(Ref, st.sampled_from(kinds), st.integers(0, 40), forwards),
        min_size=1,
        max_size=largest,
    ).map(tuple)


@st.composite
def _steps(draw) -> tuple[Step, ...]:
    roots = _refs(('level', 'level', 'map'), 2)
    wrt = _refs(('map', 'map', 'parameter', 'image'), 3)
    step = st.one_of(
        st.builds(Backward, roots),
        st.builds(Grad, roots, wrt),
        st.builds(Penalty, roots, wrt),
        st.builds(ZeroGrad, st.booleans()),
        st.builds(Forward, st.integers(0, 1), st.integers(0, 3).map(lambda i: i == 0)),
        st.builds(Mode, st.booleans()),
    )
    first = Forward(0, draw(st.integers(0, 9)) == 0)
    steps = draw(st.lists(step, max_size=3))
    last = draw(st.builds(Backward, roots, st.booleans()))
    return (first, *steps, last)


@st.composite
def _partial_steps(draw) -> tuple[Step, ...]:
    """One forward pass and several backward passes, each over a part of its graph."""
    maps = _refs(('map',), 2, st.just(0))
    some = st.one_of(maps, _refs(('level',), 1, st.just(0)))
    step = st.one_of(st.builds(Grad, some, maps), st.builds(Backward, some))
    steps = draw(st.lists(step, min_size=1, max_size=3))
    return (Forward(), *steps, Backward(draw(some), draw(st.booleans())))
