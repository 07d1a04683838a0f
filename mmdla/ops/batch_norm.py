"""What the fused operations need of a BatchNorm layer and of drop path."""

from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn
from torch.nn.modules.batchnorm import BatchNorm2d

from .backend import at_least_float32
from .library import define


def unsupported_reason(x: Tensor, norm: nn.Module, drop_path: nn.Module) -> str | None:
    """Say why these layers cannot be part of a fused operation, or return ``None``."""
    if type(norm) is not BatchNorm2d or not norm.affine:
        return f'they need an affine BatchNorm2d, got {type(norm).__name__}'
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return 'they need a norm with running statistics'
    if norm.weight.dtype not in (x.dtype, at_least_float32(x.dtype)):
        return f'parameters are {norm.weight.dtype}, maps {x.dtype}'
    if norm.training and x.numel() == x.shape[1]:
        return 'batch statistics need more than one value per channel'
    if type(drop_path) not in (DropPath, nn.Identity):
        return f'they need DropPath, got {type(drop_path).__name__}'
    return None


def tensor_of(module: nn.Module, name: str) -> Tensor:
    """Return a parameter or buffer; ``getattr`` alone looks everywhere else first."""
    found = module._parameters.get(name)
    if found is None:
        found = module._buffers.get(name)
    return getattr(module, name) if found is None else found


def has_running_affine(norm: nn.Module) -> bool:
    """Whether a layer is a scale and a shift of every channel, the same for every input."""
    return (
        type(norm) is BatchNorm2d
        and norm.affine
        and not norm.training
        and norm.running_mean is not None
        and norm.running_var is not None
    )


def drop_path_scale(x: Tensor, drop_path: nn.Module) -> Tensor | None:
    """Return what drop path multiplies every sample with, 0 or ``1 / (1 - rate)``: (B, 1).

    ``None`` stands for 1.
    """
    if type(drop_path) is nn.Identity or not drop_path.training:
        return None
    ones = x.new_ones(x.shape[0], 1, 1, 1, dtype=at_least_float32(x.dtype))
    return drop_path(ones).view(-1, 1)


def affine_of(norm: list[Tensor], eps: float) -> tuple[Tensor, Tensor]:
    """Return scale and shift, each (C,), of a layer's :func:`statistics_of`."""
    weight, bias, mean, var = norm
    scale = weight * (var + eps).rsqrt()
    return scale, bias - scale * mean


def rounded_affine(norm: list[Tensor], eps: float, r: Tensor) -> tuple[Tensor, Tensor]:
    """Return scale and shift (B, C) of a norm, rounded as PyTorch's layer rounds."""
    dtype, size = at_least_float32(r.dtype), r.shape[:2]
    if not norm:
        return r.new_ones(size, dtype=dtype), r.new_zeros(size, dtype=dtype)
    weight, bias, mean, var = (v.to(at_least_float32(v.dtype)) for v in norm)
    scale = weight * (var + eps).rsqrt()
    shift = bias.double() - mean.double() * scale.double()  # rounded once, after all of it
    return tuple(v.to(scale.dtype).to(dtype).expand(size).contiguous() for v in (scale, shift))


def combine(means: Tensor, m2: Tensor, area: int) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance (C,) of a batch from those of its planes, (B, C) each."""
    mean = means.mean(0)
    return mean, m2.mean(0) / area + (means - mean).square().mean(0)


def statistics_of(norm: BatchNorm2d | None) -> list[Tensor]:
    """Return weight, bias, running mean and variance of a layer, or an empty list."""
    if norm is None:
        return []
    return [tensor_of(norm, n) for n in ('weight', 'bias', 'running_mean', 'running_var')]


def _update_reference(running_mean, running_var, batches, mean, var, momentum, count) -> None:
    batches.add_(1)
    if momentum is None:  # cumulative average
        momentum = 1.0 / batches.to(mean)
    running_mean += momentum * (mean - running_mean)
    running_var += momentum * (var * (count / max(count - 1, 1)) - running_var)


_update_statistics_ = define(
    'update_statistics_(Tensor(a!) running_mean, Tensor(b!) running_var, Tensor(c!) batches,'
    ' Tensor mean, Tensor var, float? momentum, int count) -> ()',
    reference=_update_reference,
    kernel=lambda kernels, *args: kernels.update_statistics(*args),
    fake=lambda *_: None,
)


def update_statistics(norm: BatchNorm2d, mean: Tensor, var: Tensor, count: int) -> None:
    """Update the running statistics as the layer itself does, with ``count`` values a channel."""
    if norm.track_running_stats:
        _update_statistics_(
            norm.running_mean,
            norm.running_var,
            norm.num_batches_tracked,
            mean.detach(),
            var.detach(),
            norm.momentum,
            count,
        )


class BatchNormBackward:
    """Gradient of ``o`` behind batch statistics: ``alpha t + beta o + gamma`` in every plane.

    ``t`` is the gradient of the normed map ``z``, but for ``keep``.

    Args:
        sums (Tensor): Sum of ``t`` in every plane, (B, C).
        with_o (Tensor): Dot product of ``t`` and ``o`` in every plane, (B, C).
        keep (Tensor): Factor of ``t``, (B, C) or (B, 1).
        weight (Tensor): Of the norm, (C,).
        mean (Tensor): Of the batch, (C,).
        rstd (Tensor): One over the standard deviation, (C,).
        count (int): Values of a channel.

    Attributes:
        weight (Tensor): Gradient of the norm's weight, (C,).
        bias (Tensor): Gradient of its bias, (C,).
        alpha, beta, gamma (Tensor): (B, C).
    """

    def __init__(self, sums, with_o, keep, weight, mean, rstd, count) -> None:
        self.bias = (keep * sums).sum(0)
        self.weight = rstd * ((keep * with_o).sum(0) - mean * self.bias)
        outer = weight * rstd
        beta = -outer * rstd * self.weight / count  # (C,)
        gamma = -outer * self.bias / count - beta * mean  # (C,)
        self.alpha = (keep * outer).expand_as(sums).contiguous()
        self.beta, self.gamma = (v.expand_as(sums).contiguous() for v in (beta, gamma))
