"""What a random program is: a model, hooks on its modules, and steps over it."""

from dataclasses import dataclass
from typing import Any

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
