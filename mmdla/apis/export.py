"""Export parts of a model: to ONNX by two exporters, and by PyTorch's own export.

MMDetection's post-processing (proposals, box decoding, suppression) works on lists and calls
compiled operators of mmcv, which no exporter knows. So a graph ends where tensors of fixed meaning
end: a detector with a dense head at the raw outputs of that head, one with proposals at its neck.
"""

import importlib
import json
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.utils import digit_version
from torch import Tensor, nn

from mmdla.errors import InputError
from mmdla.version import __version__

PARTS = ('backbone', 'neck', 'model')
HEAD_OUTPUTS = ('cls_score', 'bbox_pred')
EXPORTERS = ('dynamo', 'torchscript')
OPSETS = (18, 19, 20)  # torchscript: only the first, later ones give graphs that do not load
AXES = {0: 'batch', 2: 'height', 3: 'width'}  # of any length
FIRST_TORCH = '2.6'  # whose torch.export finds out about free dimensions by itself
EXAMPLE = (192, 256)  # height, width of the images that are traced


class Part(nn.Module):
    """Module that is exported: images to a flat tuple of tensors.

    Args:
        model (nn.Module): A detector or classifier of the host libraries, in eval mode.
        part (str, optional): ``'backbone'``, ``'neck'`` (and all before it), or ``'model'``: with
            the head, if that can be exported. Default: as much as can be.

    Raises:
        InputError: The model has no such part, or it cannot be exported.
    """

    def __init__(self, model: nn.Module, part: str | None = None) -> None:
        super().__init__()
        allowed = exportable_parts(model)
        self.part = part or allowed[-1]
        if self.part not in allowed:
            reason = f'{type(model).__name__} has none'
            if self.part == 'model' and hasattr(model, 'roi_head'):
                reason = 'what follows the neck of a detector with proposals cannot be exported'
            raise InputError(f'--part {part}: {reason}; there is {", ".join(allowed)}')
        self.model = model
        self.eval()  # the TorchScript exporter restores the mode of the whole, parts included

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute the tensors that :meth:`names` names from normalised images (B, 3, H, W)."""
        features = self.model.backbone(images)
        if self.part == 'backbone':
            return _flat(features)
        if getattr(self.model, 'neck', None) is not None:
            features = self.model.neck(features)
        if self.part == 'neck':
            return _flat(features)
        return _flat(_head(self.model)(features))

    def names(self, count: int) -> list[str]:
        """Return names for ``count`` outputs."""
        if self.part != 'model':
            return [f'{self.part}_{i}' for i in range(count)]
        if not hasattr(self.model, 'bbox_head'):
            return ['logits'] if count == 1 else [f'logits_{i}' for i in range(count)]
        levels = self.model.bbox_head.prior_generator.num_levels
        kinds = [*HEAD_OUTPUTS, *(f'head_{i}' for i in range(len(HEAD_OUTPUTS), count))]
        return [f'{kinds[i // levels]}_{i % levels}' for i in range(count)]

    @property
    def in_channels(self) -> int:
        convs = (m for m in self.model.backbone.modules() if isinstance(m, nn.Conv2d))
        return next(convs).in_channels


def exportable_parts(model: nn.Module) -> list[str]:
    """Parts that can be exported, from the smallest."""
    parts = ['backbone']
    if getattr(model, 'neck', None) is not None:
        parts.append('neck')
    if _head(model) is not None and not hasattr(model, 'roi_head'):
        parts.append('model')
    return parts


def _head(model: nn.Module) -> nn.Module | None:
    """Return the head of a classifier, or the dense head of a detector."""
    return getattr(model, 'bbox_head', None) or getattr(model, 'head', None)


def _flat(outputs: Tensor | tuple | list) -> tuple[Tensor, ...]:
    if isinstance(outputs, Tensor):
        return (outputs,)
    return tuple(tensor for output in outputs for tensor in _flat(output))


def export_onnx(part: Part, path: Path, exporter: str = 'dynamo', opset: int = OPSETS[0]) -> None:
    """Write an ONNX file whose input ``images`` has any number of images of any size.

    Args:
        part (Part): What to export, on the CPU.
        path (Path): The file.
        exporter (str): ``'dynamo'`` (by ``torch.export``) or ``'torchscript'`` (by tracing).
        opset (int): Version of ONNX's operators.

    Raises:
        InputError: The packages that this needs are not installed.
    """
    if exporter == 'dynamo':
        check_torch()
    check_packages('onnx', *(['onnxscript'] if exporter == 'dynamo' else []))
    example = _example(part)
    with torch.no_grad():
        outputs = part(example)
    names = part.names(len(outputs))
    options = dict(input_names=['images'], output_names=names, opset_version=opset)
    if exporter == 'dynamo':
        options.update(dynamo=True, external_data=False, verbose=False)
        options.update(dynamic_shapes=_dynamic_shapes())
    else:
        axes = {'images': AXES}
        for name, output in zip(names, outputs, strict=True):
            axes[name] = {i: axis if i == 0 else f'{name}_{axis}'
                          for i, axis in AXES.items() if i < output.dim()}  # fmt: skip
        options.update(dynamo=False, dynamic_axes=axes)
    torch.onnx.export(part, (example,), str(path), **options)


def export_program(part: Part) -> torch.export.ExportedProgram:
    """Export by ``torch.export``, for any number of images of any size.

    Run it as ``program.module(check_guards=False)``: PyTorch's shape rule of max pooling branches,
    without effect, on whether a size is odd, and the guard that this leaves refuses half of them.

    Args:
        part (Part): What to export, on the CPU.

    Returns:
        ExportedProgram: Takes images (B, 3, H, W), returns the tensors of :meth:`Part.names`.

    Raises:
        InputError: PyTorch is older than 2.6.
    """
    check_torch()
    shapes = (dict.fromkeys(AXES, torch.export.Dim.DYNAMIC),)
    return torch.export.export(part, (_example(part),), dynamic_shapes=shapes, strict=False)


def _example(part: Part) -> Tensor:
    return torch.zeros(2, part.in_channels, *EXAMPLE)


def _dynamic_shapes() -> tuple[dict]:
    return ({i: torch.export.Dim(axis) for i, axis in AXES.items()},)


def complete(path: Path, cfg: Config, model: nn.Module) -> None:
    """Check an ONNX file, and write into it how its input is made and the names of the classes.

    Raises:
        InputError: It has operators that are not ONNX's own.
    """
    import onnx

    graph = onnx.load(path)
    foreign = {f'{n.domain}::{n.op_type}' for n in graph.graph.node if n.domain}
    if foreign:
        raise InputError(f'the model has operators that ONNX does not know: {sorted(foreign)}')
    del graph.graph.value_info[:]  # shapes in between, some of which tracing infers wrongly
    onnx.checker.check_model(graph)
    onnx.helper.set_model_props(graph, properties(cfg, model))
    onnx.save(graph, path)


def properties(cfg: Config, model: nn.Module) -> dict[str, str]:
    """Return what the input of the model must be made with, as JSON values by name."""
    preprocessor = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    to_rgb = preprocessor.get('bgr_to_rgb', preprocessor.get('to_rgb', False))
    values = dict(
        mmdla=__version__,
        mean=preprocessor.get('mean'),
        std=preprocessor.get('std'),
        flips_channels=bool(to_rgb),
        pad_size_divisor=preprocessor.get('pad_size_divisor', 1),
        classes=model.dataset_meta.get('classes'),
    )
    return {key: json.dumps(value) for key, value in values.items() if value is not None}


def check_torch() -> None:
    """Refuse ``torch.export``, and the ONNX exporter on it, where free dimensions are beyond it.

    Raises:
        InputError: Names the versions, and what works instead.
    """
    if digit_version(torch.__version__) < digit_version(FIRST_TORCH):
        raise InputError(
            f'torch.export with free dimensions needs PyTorch >= {FIRST_TORCH}, this is '
            f'{torch.__version__}; --exporter torchscript writes ONNX files with older ones'
        )


def check_packages(*names: str) -> None:
    """Refuse to go on without packages of the extra ``mmdla[onnx]``.

    Raises:
        InputError: Names what is missing.
    """
    missing = []
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
    if missing:
        raise InputError(f'{", ".join(missing)} must be installed: pip install "mmdla[onnx]"')
