"""Run a program in float64, with the fused operations or as plain modules."""

import contextlib
import functools
from typing import Any

import torch
from program_models import build
from program_traces import Trace
from programs import (
    GLOBAL,
    Backward,
    Forward,
    Hook,
    Mode,
    Penalty,
    Program,
    Ref,
    Step,
    ZeroGrad,
)
from torch import Tensor
from torch.nn.modules import module as module_hooks
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop


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
        self.model = build(setup, ops).to(memory_format=self.layout)
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
    return type(tree)(*items) if hasattr(tree, '_fields') else tuple(items)
