"""What the Triton kernels need of a GPU, without one: registers, spills, shared memory, occupancy.

Compiles every kernel as tests/ops/compile_kernels.py does and lets ptxas say what it takes. Prints
the table of docs/performance.md.
"""

import re
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / 'tests' / 'ops'))

from compile_kernels import CHANNELS_LAST, NCHW, source  # noqa: E402

PTXAS = Path(triton.__file__).parent / 'backends' / 'nvidia' / 'bin' / 'ptxas'
# of a multiprocessor (CUDA C++ Programming Guide, technical specifications per compute capability)
REGISTERS, WARPS, BLOCKS = 65536, 64, 32
SHARED = {80: 164 * 1024, 90: 228 * 1024}
WARP, GRAIN = 32, 256  # threads of a warp, registers that are given to one at a time
NUM_WARPS = 4


def occupancy(registers: int, shared: int, capability: int) -> float:
    """Share of a multiprocessor's warps that can be resident at once."""
    of_warp = -(-registers * WARP // GRAIN) * GRAIN
    blocks = min(BLOCKS, WARPS // NUM_WARPS, REGISTERS // (of_warp * NUM_WARPS))
    if shared:
        blocks = min(blocks, SHARED[capability] // (shared + 1024))  # 1 KB is the system's
    return blocks * NUM_WARPS / WARPS


def resources(kernel, dtype: str, layout: dict, capability: int) -> tuple[int, int, int]:
    """Registers of a thread, bytes that it spills, bytes of shared memory of a block."""
    target = GPUTarget('cuda', capability, WARP)
    built = triton.compile(source(kernel, dtype, layout), target, options=dict(num_warps=NUM_WARPS))
    with tempfile.TemporaryDirectory() as folder:
        ptx = Path(folder, 'kernel.ptx')
        ptx.write_text(built.asm['ptx'])
        name = re.search(r'^\.target (\w+)', built.asm['ptx'], re.M)[1]
        argv = [PTXAS, '-v', f'--gpu-name={name}', ptx, '-o', Path(folder, 'kernel.cubin')]
        said = subprocess.run(argv, capture_output=True, text=True, check=True).stderr
    registers = int(re.search(r'Used (\d+) registers', said)[1])
    spilled = int(re.search(r'(\d+) bytes spill stores', said)[1])
    return registers, spilled, built.metadata.shared


def main() -> None:
    print('| kernel | maps | registers, 8.0 / 9.0 | spills, bytes | shared, bytes | occupancy |')
    print('|---|---|---|---|---|---|')
    for module in ('dual_dwconv', 'add_relu_pool', 'weighted_sum'):
        members = vars(import_module(f'mmdla.ops.triton.{module}'))
        for name in [name for name in members if name.endswith('_kernel')]:
            for label, layout in (('NCHW', NCHW), ('channels_last', CHANNELS_LAST)):
                found = {c: resources(members[name].fn, 'bf16', layout, c) for c in SHARED}
                columns = [' / '.join(str(f[i]) for f in found.values()) for i in range(3)]
                shares = [f'{occupancy(f[0], f[2], c):.0%}' for c, f in found.items()]
                cells = [f'`{module}.{name.strip("_")}`', label, *columns, ' / '.join(shares)]
                print('| ' + ' | '.join(cells) + ' |', flush=True)


if __name__ == '__main__':
    main()
