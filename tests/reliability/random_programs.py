"""Random programs over a small backbone: what people do with a ResNet, in any combination.

A program is a list of steps over one model whose modules somebody hooks, wraps and freezes. It runs
twice in float64, with the fused operations and as plain modules, and leaves a :class:`Trace` each
time: gradients, captured maps, calls of modules. ``python tests/reliability/random_programs.py
1000`` runs a thousand.
"""

import contextlib
import copy
import functools
import sys
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.modules import module as module_hooks
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from mmdla import DLAResNet

FUSED = ('DLALight', 'DLABase', 'MRLALight', 'MRLABase')
OTHERS = ('DIALSTM', 'SE', 'ECA', 'KCLA', 'RLA', None)
SMALL = {
    'DLALight': dict(reduction=4, head_channels=8),
    'DLABase': dict(reduction=4, head_channels=8),
    'MRLALight': dict(head_channels=8),
    'MRLABase': dict(head_channels=8),
    'DIALSTM': dict(reduction=4),
    'SE': dict(reduction=4),
    'ECA': {},
    'KCLA': dict(head_channels=4, restart_block=1),
    'RLA': dict(hidden_channels=4),
}

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
GLOBAL = ('global_forward', 'global_forward_pre', 'global_backward', 'global_backward_pre')


@dataclass(frozen=True)
class Setup:
    """The model and its input."""

    attention: str | None
    options: tuple[tuple[str, Any], ...] = ()
    depth: int = 18
    batch: int = 2
    size: tuple[int, int] = (32, 32)
    training: bool = True
    norm_eval: bool = False
    norm: str = 'BN'
    with_cp: bool = False
    drop_path: float = 0.0
    input_grad: bool = True
    frozen: tuple[str, ...] = ()  # modules whose parameters need no gradient
    evaluated: tuple[str, ...] = ()  # modules in eval mode
    channels_last: bool = False  # layout of parameters and images


@dataclass(frozen=True)
class Hook:
    """Something that is put on a module, or on all."""

    kind: str
    module: str = ''


@dataclass(frozen=True)
class Ref:
    """A tensor: ``kind`` is 'level' or 'map' of a forward pass, 'image', or 'parameter'."""

    kind: str
    index: int = 0
    forward: int = 0


@dataclass(frozen=True)
class Forward:
    image: int = 0  # two passes with the same number see the same image
    no_grad: bool = False


@dataclass(frozen=True)
class Backward:
    roots: tuple[Ref, ...]
    retain: bool = True


@dataclass(frozen=True)
class Grad:
    roots: tuple[Ref, ...]
    wrt: tuple[Ref, ...]


@dataclass(frozen=True)
class Penalty:
    """Backward pass of the squared norm of gradients."""

    roots: tuple[Ref, ...]
    wrt: tuple[Ref, ...]


@dataclass(frozen=True)
class ZeroGrad:
    set_to_none: bool = True


@dataclass(frozen=True)
class Mode:
    training: bool


Step = Forward | Backward | Grad | Penalty | ZeroGrad | Mode


@dataclass(frozen=True)
class Program:
    setup: Setup
    hooks: tuple[Hook, ...]
    steps: tuple[Step, ...]


@dataclass
class Trace:
    """What a run of a program left: named tensors, and how often things were called."""

    tensors: dict[str, Tensor | None] = field(default_factory=dict)
    calls: Counter = field(default_factory=Counter)
    changed: list[str] = field(default_factory=list)  # captured maps that somebody overwrote
    error: str | None = None
    second_order: bool = False  # a gradient that is zero there may be None as well


# Running


@functools.lru_cache(maxsize=64)
def _model(setup: Setup, ops: str) -> DLAResNet:
    attention = None
    if setup.attention is not None:
        attention = dict(type=setup.attention, **SMALL[setup.attention], **dict(setup.options))
        if setup.attention in FUSED:
            attention.update(ops=ops, drop_path_rate=setup.drop_path)
    norm_cfg = dict(type='GN', num_groups=4) if setup.norm == 'GN' else dict(type='BN')
    torch.manual_seed(3)
    model = DLAResNet(
        setup.depth,
        base_channels=8,
        stem_channels=8,
        num_stages=2,
        strides=(1, 2),
        dilations=(1, 1),
        out_indices=(0, 1),
        norm_cfg=norm_cfg,
        norm_eval=setup.norm_eval,
        with_cp=setup.with_cp,
        drop_path_rate=setup.drop_path,
        zero_init_residual=False,
        layer_attention=attention,
    ).double()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
                module.weight.copy_(0.3 + 0.4 * _random(module.weight, generator))
                module.bias.copy_(0.3 * _random(module.bias, generator))
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.copy_(0.2 * _random(module.running_mean, generator))
                module.running_var.copy_(0.5 + _random(module.running_var, generator))
    return model


def _random(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(like.shape, generator=generator, dtype=like.dtype)


@functools.lru_cache(maxsize=64)
def module_names(setup: Setup) -> dict[str, tuple[str, ...]]:
    """Names of modules by what they are: 'block', 'stage', 'attention', 'leaf', 'inner'."""
    model = _model(setup, 'reference')
    names: dict[str, list[str]] = {k: [] for k in ('block', 'stage', 'attention', 'leaf', 'inner')}
    for name, _ in model.named_modules():
        if not name:
            continue
        parts = name.split('.')
        if name.startswith('layer') and len(parts) == 1:
            kind = 'stage'
        elif name.startswith('layer') and len(parts) == 2:
            kind = 'attention' if parts[1] == 'attention' else 'block'
        elif 'attention' in parts:
            kind = 'inner'
        else:
            kind = 'leaf'
        names[kind].append(name)
    return {kind: tuple(found) for kind, found in names.items()}


def run(program: Program, ops: str, observed: bool = False) -> Trace:
    """Run a program.

    Args:
        program (Program): What to do.
        ops (str): Argument of the attention.
        observed (bool): Whether a global hook, which does nothing, sees every module.
    """
    return _Run(program, ops, observed).trace


class _Run:
    def __init__(self, program: Program, ops: str, observed: bool) -> None:
        self.program, self.trace = program, Trace()
        setup = program.setup
        self.layout = torch.channels_last if setup.channels_last else torch.contiguous_format
        self.model = copy.deepcopy(_model(_built_alike(setup), ops)).to(memory_format=self.layout)
        self.names = {module: name for name, module in self.model.named_modules()}
        self.modules = dict(self.model.named_modules())
        self.parameters = list(self.model.named_parameters())
        self.images: dict[int, Tensor] = {}
        self.forwards: list[tuple[Tensor, ...]] = []
        self.maps: list[list[Tensor]] = []
        self.captured: list[tuple[str, Tensor, Tensor]] = []
        self.handles: list[Any] = []
        self._set_mode(setup.training)
        for name in setup.frozen:
            self.modules[name].requires_grad_(False)
        try:
            if observed:
                self.handles.append(
                    module_hooks.register_module_forward_pre_hook(lambda module, args: None)
                )
            for number, hook in enumerate(program.hooks):
                self._put(hook, number)
            with set_checkpoint_early_stop(False):  # which modules are called again is not ours
                for number, step in enumerate(program.steps):
                    self._step(step, number)
        except (RuntimeError, AssertionError) as error:  # checkpoints raise both
            self.trace.error = f'{type(error).__name__}: {error}'
        finally:
            for handle in self.handles:
                handle.remove()
        self._finish()

    def _set_mode(self, training: bool) -> None:
        self.model.train(training)
        for name in self.program.setup.evaluated:
            self.modules[name].eval()

    def _finish(self) -> None:
        for name, now, then in self.captured:
            if not torch.equal(now.detach(), then):
                self.trace.changed.append(name)
        for name, parameter in self.parameters:
            self.trace.tensors[f'{name}.grad'] = parameter.grad
        for name, buffer in self.model.named_buffers():
            self.trace.tensors[f'{name} (buffer)'] = buffer
        for number, image in self.images.items():
            self.trace.tensors[f'image {number} grad'] = image.grad

    # hooks

    def _put(self, hook: Hook, number: int) -> None:
        where = f'hook {number} {hook.kind} {hook.module}'
        if hook.kind in GLOBAL:
            return self._put_globally(hook, where)
        module = self.modules[hook.module]
        count = self.trace.calls
        keep = self.handles.append

        def note(*tensors: Any) -> None:
            count[where] += 1
            for t in (t for tree in tensors for t in _tensors(tree)):
                self._capture(f'{where} call {count[where]}', t)

        def note_gradients(*gradients: Any) -> None:
            count[where] += 1
            for i, g in enumerate(gradients):
                for j, t in enumerate(g):
                    name = f'{where} call {count[where]} gradient {i}.{j}'
                    self.trace.tensors[name] = t if t is None else t.detach().clone()

        def on_output(change):
            return module.register_forward_hook(lambda m, args, out: _first_map(out, change))

        def on_input(change):
            return module.register_forward_pre_hook(lambda m, args: _first_map(args, change))

        def wrap(call):
            forward = module.forward
            module.forward = functools.wraps(forward)(functools.partial(call, forward))

        def hook_gradient(t: Tensor, change=None) -> Tensor:
            if t.requires_grad:
                t.register_hook((lambda g: note_gradients((g,))) if change is None else change)
            return t

        def retain(t: Tensor) -> Tensor:
            if t.requires_grad:
                t.retain_grad()
                self.maps[-1].append(t)
            count[where] += 1
            return t

        def under_no_grad(forward, *args, **kwargs):
            with torch.no_grad():
                return forward(*args, **kwargs)

        def counted(forward, *args, **kwargs):
            count[where] += 1
            return forward(*args, **kwargs)

        put = {
            'forward': lambda: keep(module.register_forward_hook(lambda m, a, out: note(a, out))),
            'forward_kwargs': lambda: keep(
                module.register_forward_hook(lambda m, a, k, out: note(a, k, out), with_kwargs=True)
            ),
            'forward_pre': lambda: keep(module.register_forward_pre_hook(lambda m, a: note(a))),
            'forward_pre_kwargs': lambda: keep(
                module.register_forward_pre_hook(lambda m, a, k: note(a, k), with_kwargs=True)
            ),
            'full_backward': lambda: keep(
                module.register_full_backward_hook(lambda m, gi, go: note_gradients(gi, go))
            ),
            'full_backward_pre': lambda: keep(
                module.register_full_backward_pre_hook(lambda m, go: note_gradients(go))
            ),
            'scale_grad_input': lambda: keep(
                module.register_full_backward_hook(
                    lambda m, gi, go: tuple(g if g is None else 0.5 * g for g in gi)
                )
            ),
            'tensor_hook': lambda: keep(on_output(hook_gradient)),
            'scale_gradient': lambda: keep(
                on_output(lambda t: hook_gradient(t, lambda g: g if g is None else 2 * g))
            ),
            'retain_grad': lambda: keep(on_output(retain)),
            'detach_input': lambda: keep(on_input(lambda t: t.detach())),
            'scale_input': lambda: keep(on_input(lambda t: 0.5 * t)),
            'shift_input': lambda: keep(on_input(lambda t: t + _pattern(t))),
            'detach_output': lambda: keep(on_output(lambda t: t.detach())),
            'scale_output': lambda: keep(on_output(lambda t: 0.5 * t)),
            'shift_output': lambda: keep(on_output(lambda t: t + _pattern(t))),
            'checkpoint': lambda: wrap(functools.partial(checkpoint, use_reentrant=False)),
            'no_grad': lambda: wrap(under_no_grad),
            'call_counted': lambda: wrap(counted),
        }
        put[hook.kind]()

    def _put_globally(self, hook: Hook, where: str) -> None:
        def note(module, *_) -> None:
            self.trace.calls[f'{where} {self.names.get(module, "another")}'] += 1

        register = {
            'global_forward': module_hooks.register_module_forward_hook,
            'global_forward_pre': module_hooks.register_module_forward_pre_hook,
            'global_backward': module_hooks.register_module_full_backward_hook,
            'global_backward_pre': module_hooks.register_module_full_backward_pre_hook,
        }
        self.handles.append(register[hook.kind](note))

    def _capture(self, name: str, t: Tensor) -> None:
        self.captured.append((name, t, t.detach().clone()))
        self.trace.tensors[f'{name} map {len(self.captured)}'] = self.captured[-1][2]
        if t.dim() == 4:
            self.maps[-1].append(t)

    # steps

    def _step(self, step: Step, number: int) -> None:
        if isinstance(step, Forward):
            self._forward(step)
        elif isinstance(step, ZeroGrad):
            self.model.zero_grad(set_to_none=step.set_to_none)
        elif isinstance(step, Mode):
            self._set_mode(step.training)
        elif isinstance(step, Backward):
            roots = self._roots(step.roots)
            if roots:
                torch.autograd.backward(roots, retain_graph=step.retain)
        else:
            roots = self._roots(step.roots)
            wrt = [t for t in map(self._find, step.wrt) if t is not None and t.requires_grad]
            if not roots or not wrt:
                return
            penalty = isinstance(step, Penalty)
            gradients = torch.autograd.grad(
                sum(roots), wrt, retain_graph=True, create_graph=penalty, allow_unused=True
            )
            for i, g in enumerate(gradients):
                name = f'step {number} gradient {i}'
                self.trace.tensors[name] = g if g is None else g.detach().clone()
            squares = [g.square().sum() for g in gradients if g is not None and g.requires_grad]
            if penalty and squares:
                self.trace.second_order = True
                sum(squares).backward(retain_graph=True)

    def _forward(self, step: Forward) -> None:
        setup = self.program.setup
        if step.image not in self.images:
            generator = torch.Generator().manual_seed(step.image)
            image = torch.rand(
                setup.batch, 3, *setup.size, generator=generator, dtype=torch.float64
            )
            image = image.contiguous(memory_format=self.layout)
            self.images[step.image] = image.requires_grad_(setup.input_grad)
        self.maps.append([])
        torch.manual_seed(7)  # drop path
        with torch.no_grad() if step.no_grad else contextlib.nullcontext():
            outs = self.model(self.images[step.image])
        self.forwards.append(outs)
        for level, out in enumerate(outs):
            name = f'forward {len(self.forwards)} level {level}'
            self.captured.append((name, out, out.detach().clone()))
            self.trace.tensors[name] = self.captured[-1][2]

    def _find(self, ref: Ref) -> Tensor | None:
        if ref.kind == 'parameter':
            return self.parameters[ref.index % len(self.parameters)][1]
        if ref.kind == 'image':
            return self.images.get(ref.index)
        if ref.forward >= len(self.forwards):
            return None
        found = {'level': self.forwards, 'map': self.maps}[ref.kind][ref.forward]
        return found[ref.index % len(found)] if found else None

    def _roots(self, refs: tuple[Ref, ...]) -> list[Tensor]:
        tensors = [t for t in map(self._find, refs) if t is not None and t.requires_grad]
        return [(t * (1 + _pattern(t))).sum() for t in tensors]


def _built_alike(setup: Setup) -> Setup:
    """Return the setup without what is done to a model afterwards."""
    same = dict(attention=setup.attention, options=setup.options, depth=setup.depth)
    same.update(norm=setup.norm, norm_eval=setup.norm_eval, with_cp=setup.with_cp)
    return Setup(**same, drop_path=setup.drop_path)


def _pattern(t: Tensor) -> Tensor:
    """Return values between -1 and 1 of the shape of a tensor, the same each time."""
    count = torch.arange(t.numel(), dtype=torch.float64)
    return (1.7 * count + 0.3).sin().reshape(t.shape)


def _tensors(tree: Any) -> list[Tensor]:
    """Tensors among arguments or results; not those of a state, whose form nobody is promised."""
    if isinstance(tree, Tensor):
        return [tree]
    items = tree.values() if isinstance(tree, dict) else tree
    return [t for t in items if isinstance(t, Tensor)] if isinstance(tree, dict | tuple) else []


def _first_map(tree: Any, change) -> Any:
    """Change the first map in (a tuple of) tensors."""
    if isinstance(tree, Tensor):
        return change(tree)
    items = list(tree)
    for i, item in enumerate(items):
        if isinstance(item, Tensor) and item.dim() == 4:
            items[i] = change(item)
            break
    return tuple(items)


def compare(fused: Trace, plain: Trace, tolerance: float = 1e-9) -> list[str]:
    """Return what differs between two runs of a program, a line for each."""
    if plain.error or fused.error:
        # a program that PyTorch refuses is refused both ways
        same = bool(plain.error) and bool(fused.error)
        return [] if same else [f'error: fused {fused.error}, plain {plain.error}']
    lines = [f'overwritten: {name}' for name in (*fused.changed, *plain.changed)]
    for name in sorted(fused.calls.keys() | plain.calls.keys()):
        if fused.calls[name] != plain.calls[name]:
            lines.append(f'calls: {name}: fused {fused.calls[name]}, plain {plain.calls[name]}')
    floor = max((t.abs().max().item() for t in plain.tensors.values() if _counts(t)), default=0.0)
    for name in fused.tensors.keys() | plain.tensors.keys():
        got, right = fused.tensors.get(name), plain.tensors.get(name)
        if (got is None) != (right is None):
            there = right if got is None else got
            if plain.second_order and not there.any():
                continue
            lines.append(f'{name}: {"no" if got is None else "a"} tensor, unlike the modules')
        elif right is not None and got.shape != right.shape:
            lines.append(f'{name}: shape {tuple(got.shape)}, not {tuple(right.shape)}')
        elif _counts(right):
            off = (got - right).abs().max().item()
            # gradients that are zero but for rounding have no digits of their own
            if not off <= tolerance * right.abs().max().item() + 1e-13 * floor:
                lines.append(f'{name}: off by {off:.1e} of {right.abs().max().item():.1e}')
    return sorted(lines)


def _counts(t: Tensor | None) -> bool:
    return t is not None and t.numel() > 0 and t.is_floating_point()


# Drawing


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
    attention = draw(st.sampled_from(FUSED * 3 + OTHERS))
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


def check(program: Program) -> Trace:
    """Run a program both ways, raise ``AssertionError`` where they differ; the modules' trace."""
    plain = run(program, 'reference', observed=True)
    # with other norms the kernels cannot run, which 'fast' would say
    for ops in ('auto' if program.setup.norm == 'GN' else 'fast', 'reference'):
        differences = compare(run(program, ops), plain)
        assert not differences, '\n'.join([f'ops={ops!r}', *differences[:8], repr(program)])
    return plain


def main(number: int, start: int = 0) -> int:
    """Run random programs, print those that fail, return how many did."""
    torch.set_num_threads(1)
    counts: Counter = Counter()

    @seed(start)
    @settings(
        max_examples=number,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(programs())
    def draw(program):
        try:
            trace = check(program)
        except AssertionError as error:
            counts['failed'] += 1
            print(error, end='\n\n', flush=True)
        else:
            counts['refused by PyTorch' if trace.error else 'passed'] += 1

    draw()
    print(', '.join(f'{n} {what}' for what, n in sorted(counts.items())))
    return counts['failed']


if __name__ == '__main__':
    sys.exit(bool(main(*map(int, sys.argv[1:]))))
