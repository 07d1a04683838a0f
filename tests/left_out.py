"""Tests that an older PyTorch cannot run, each with the reason; the only place where any are left out.

With the pinned stack of ``make test`` nothing is. ``make test-openmmlab`` names at its end what was.
"""

import torch
from mmengine.utils import digit_version

EXPORT = (
    'torch.export with free dimensions, and the ONNX exporter made on it, begin with PyTorch 2.6'
)
TRITON = (
    'the interpreter of Triton 3.0, which PyTorch 2.4 pins, refuses functions called by a kernel'
)
IN_GRAPHS = 'PyTorch before 2.7 cannot tell compilation from export, where the modules have to run'
WRAPPED = (
    "the compiler of PyTorch 2.4 does not follow MMEngine's wrapper for renamed arguments, which is "
    'around the forward pass of MMPretrain 1.2'
)
META = 'checkpointing of PyTorch 2.4 does not know the meta device, on which the test counts memory'

# First version of PyTorch that runs them, beginnings of their ids, why.
LEFT_OUT = (
    (
        '2.6',
        (
            'tests/cli/test_export.py::test_torch_export',
            'tests/cli/test_export.py::test_classifier',
            'tests/cli/test_export.py::test_dense_detector',
            'tests/cli/test_export.py::test_check_finds_a_difference',
            'tests/cli/test_export.py::test_bad_input[argv7-cannot be read as an image]',
            'tests/cli/test_export.py::test_backbone[*-dynamo]',
        ),
        EXPORT,
    ),
    (
        '2.7',
        ('tests/models/torch_tools/test_compilers.py::test_fused_operations_are_in_the_graph',),
        IN_GRAPHS,
    ),
    (
        '2.6',
        (
            'tests/ops/test_triton.py::',
            'tests/ops/test_operations.py::test_triton_kernels_put_long_sums_together',
            *(
                f'tests/ops/test_operations.py::{test}{name}'
                for name in ('base_block', 'weighted_sum', 'carry_gradients')
                for test in (
                    'test_triton_kernels_equal_the_reference[',
                    'test_half_precision_is_within_its_rounding[nchw-',
                    'test_half_precision_is_within_its_rounding[nhwc-',
                )
            ),
        ),
        TRITON,
    ),
    (
        '2.6',
        (
            'tests/models/wrapper/test_wrapper_tools.py::test_compile[whole-mmpretrain.VisionTransformer*',
        ),
        WRAPPED,
    ),
    ('2.6', ('tests/models/test_memory.py::test_checkpointing_saves',), META),
)  # fmt: skip


def reason_for(test: str, version: str = torch.__version__) -> str | None:
    """Why a test is left out with a version of PyTorch, or ``None``."""
    for first, ids, reason in LEFT_OUT:
        if digit_version(version) < digit_version(first) and any(map(_matches(test), ids)):
            return reason
    return None


def left_out_here(version: str = torch.__version__) -> list[tuple[tuple[str, ...], str]]:
    """Beginnings of ids with their reason, as far as a version of PyTorch is too old for them."""
    too_old = [row for row in LEFT_OUT if digit_version(version) < digit_version(row[0])]
    return [(ids, reason) for _, ids, reason in too_old]


def _matches(test: str):
    def match(pattern: str) -> bool:
        start, star, end = pattern.partition('*')
        return test.startswith(start) and (not star or test.endswith(end))

    return match
