"""Compile the Triton kernels to machine code; needs no GPU, but a process without interpreter."""

from importlib import import_module

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

COUNTS = ('channels', 'height', 'width')
MAPS = ('x', 's', 'g', 'u', 'r', 'o', 'out', 'more', 'u_map', 'dx', 'ds', 'dr')
FLAGS = dict(ACC=tl.float32, NORMED=True, RESIDUAL=True, STORED=True, ADDED=True, BLOCKS=4)
NCHW = dict(LAST=False, SPAN=4096, BLOCK_P=512, BLOCK_C=1)
CHANNELS_LAST = dict(LAST=True, SPAN=256, BLOCK_P=4, BLOCK_C=64)


def source(kernel, dtype: str, layout: dict) -> ASTSource:
    """A kernel for three blocks and maps of one dtype and layout."""
    constants = {k: v for k, v in {**FLAGS, **layout}.items() if k in kernel.arg_names}
    types = {}
    for name in kernel.arg_names:
        if name in constants:
            types[name] = 'constexpr'
        elif name in COUNTS:
            types[name] = 'i32'
        elif name == 'maps':
            types[name] = (f'*{dtype}',) * 3
        else:
            types[name] = f'*{dtype}' if name in MAPS else '*fp32'
    return ASTSource(kernel, types, constants)


def main() -> None:
    compiled = 0
    for module in ('dual_dwconv', 'add_relu_pool', 'weighted_sum'):
        members = vars(import_module(f'mmdla.ops.triton.{module}'))
        for kernel in [value.fn for name, value in members.items() if name.endswith('_kernel')]:
            for generation, dtype, layout in ((80, 'fp16', NCHW), (90, 'bf16', CHANNELS_LAST)):
                target = GPUTarget('cuda', generation, 32)
                built = triton.compile(
                    source(kernel, dtype, layout), target, options=dict(num_warps=4)
                )
                compiled += bool(built.asm['cubin'])
    print(compiled, 'kernels compiled')


if __name__ == '__main__':
    main()
