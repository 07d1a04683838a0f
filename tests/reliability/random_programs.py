"""Random programs over a small backbone, run with the fused operations and as plain modules.

A program is a list of steps over one model whose modules somebody hooks, wraps and freezes. It runs
twice in float64 and leaves a :class:`Trace` each time: gradients, captured maps, calls of modules.
``python tests/reliability/random_programs.py 1000`` runs a thousand.
"""

import sys
from collections import Counter
from pathlib import Path

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings

if __name__ == '__main__':  # under pytest its configuration says so
    sys.path.insert(0, str(Path(__file__).parents[1]))

from program_runs import run
from program_strategies import programs
from program_traces import Trace, compare
from programs import Program


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
