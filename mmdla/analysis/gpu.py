"""What a GPU says of the Triton kernels, but for their time (:mod:`mmdla.analysis.benchmark`).

Are their values right, does a CUDA graph take them, how many kernels are launched?
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmdla.models import DLAResNet

KINDS = ('DLALight', 'DLABase', 'MRLALight', 'MRLABase')
DTYPES = ('float32', 'float16', 'bfloat16')
LAYOUTS = dict(nchw=torch.contiguous_format, channels_last=torch.channels_last)
SIZE = (2, 3, 64, 64)
ALLOWED = 3.0  # times the error of the reference operations in the same dtype, beyond this:
ROUNDING = dict(float32=1e-4, float16=1e-2, bfloat16=5e-2)


@dataclass(frozen=True)
class Values:
    """Largest error of a stage in a dtype, of its outputs and of its parameters' gradients.

    Args:
        kind (str): Type of the layer attention.
        dtype (str): Of autocast; ``'float32'`` without it.
        layout (str): ``'nchw'`` or ``'channels_last'``.
        training (bool): With the statistics of the batch.
        error (float): With the kernels, against the reference operations in float64:
            :func:`largest_error`.
        reference_error (float): The same of the reference operations in that dtype.
    """

    kind: str
    dtype: str
    layout: str
    training: bool
    error: float
    reference_error: float

    @property
    def is_right(self) -> bool:
        """Whether the kernels are about as exact as the reference operations in this dtype."""
        return self.error <= ALLOWED * self.reference_error + ROUNDING[self.dtype]


def autocast(device: str, dtype: str) -> AbstractContextManager:
    """Autocast to a dtype, or nothing for float32."""
    if dtype == 'float32':
        return nullcontext()
    return torch.autocast(torch.device(device).type, dtype=getattr(torch, dtype))


def network(kind: str, ops: str, device: str, training: bool) -> nn.Module:
    """Return a small network, equal for all ``ops``, whose attention is not near zero."""
    torch.manual_seed(0)
    attention = dict(type=kind, ops=ops, head_channels=8)
    if kind.startswith('DLA'):
        attention['reduction'] = 4
    model = DLAResNet(  # one stage of three blocks: in more of them rounding grows
        34,
        num_stages=1,
        strides=(1,),
        dilations=(1,),
        out_indices=(0,),
        base_channels=16,
        stem_channels=16,
        norm_eval=not training,
        layer_attention=attention,
    )
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.constant_(module.weight, 0.5)
    return model.to(device).train()


def outcome(model: nn.Module, x: Tensor, dtype: str) -> list[Tensor]:
    """Return outputs and gradients of the parameters, in float64."""
    with autocast(x.device.type, dtype):
        outs = model(x)
    generator = torch.Generator().manual_seed(2)
    directions = [torch.randn(out.shape, generator=generator).to(out) for out in outs]
    grads = torch.autograd.grad(outs, list(model.parameters()), directions, allow_unused=True)
    return [t.detach().double() for t in (*outs, *grads) if t is not None]


def largest_error(found: list[Tensor], exact: list[Tensor]) -> float:
    """Return the largest norm of a difference over the norm of what is exact, of all tensors."""
    return max(
        ((a - b).norm() / b.norm()).item()
        for a, b in zip(found, exact, strict=True)
        if b.norm() > 1e-9  # what learns nothing here has no gradient but rounding
    )


def check_values(device: str, kind: str, dtype: str, layout: str, training: bool) -> Values:
    """Compare the kernels on a device with the reference operations in float64."""
    x = torch.rand(SIZE, generator=torch.Generator().manual_seed(1)).to(device)
    exact = outcome(network(kind, 'reference', device, training).double(), x.double(), 'float32')
    errors = {}
    for ops in ('fast', 'reference'):
        model = network(kind, ops, device, training).to(memory_format=LAYOUTS[layout])
        given = x.contiguous(memory_format=LAYOUTS[layout])
        errors[ops] = largest_error(outcome(model, given, dtype), exact)
    return Values(kind, dtype, layout, training, errors['fast'], errors['reference'])


def count_launches(model: nn.Module, x: Tensor, dtype: str) -> int:
    """Count the kernels that a GPU runs for one inference."""
    with torch.no_grad(), autocast('cuda', dtype):
        model(x)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            model(x)
            torch.cuda.synchronize()
    on_gpu = torch.autograd.DeviceType.CUDA
    return sum(event.device_type == on_gpu for event in profile.events())


def graph_error(model: nn.Module, x: Tensor, dtype: str) -> float:
    """Capture an inference as a CUDA graph; return the largest error of its replay on new images.

    Raises:
        RuntimeError: The graph cannot be captured.
    """
    kept = torch.zeros_like(x)  # a graph reads and writes where it did when it was captured
    with torch.no_grad(), autocast('cuda', dtype):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):  # what is compiled or chosen on first use
                model(kept)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outs = model(kept)
        kept.copy_(x)
        graph.replay()
        expected = model(x)
    return largest_error([o.double() for o in outs], [o.double() for o in expected])
