"""The plan of a table: what every row takes, and the command lines that train it."""

import shlex
from collections.abc import Iterable
from pathlib import Path

from .estimate import count
from .launch import GPUS_PER_NODE, Plan, batch_of_a_gpu, command, shell_lines
from .runs import Run
from .tables import Table


def machine_sizes(table: Table, nodes: int) -> tuple[int, ...]:
    """Numbers of GPUs that a table is planned for; the small ones need none."""
    return (1,) if table.is_small else (1, GPUS_PER_NODE, nodes * GPUS_PER_NODE)


def estimates(table: Table, runs: Iterable[Run], tflops: float, nodes: int) -> str:
    """A Markdown table, one line for every row."""
    sizes = machine_sizes(table, nodes)
    on = ' / '.join(map(str, sizes)) + ' GPU' + 's' * (len(sizes) > 1)
    titles = ['model', 'parameters, M', 'GMACs', 'epochs', f'hours on {on}']
    rows = [[*titles, 'GB a GPU (images)'], ['---'] * 6]
    for run in {run.plan.row: run for run in runs}.values():
        cfg = run.config()
        counts = count(cfg, table.size)
        hours = [counts.hours(**table.images, gpus=n, tflops=tflops) for n in sizes]
        batches = [batch_of_a_gpu(cfg, n) for n in sizes]
        memory = [
            f'{counts.gigabytes(batch, n):.1f} ({batch})'
            for batch, n in zip(batches, sizes, strict=True)
        ]
        rows.append(
            [
                run.plan.row.name,
                f'{counts.parameters / 1e6:.2f}',
                f'{counts.macs / 1e9:.3g}',
                str(counts.epochs),
                ' / '.join(f'{h:.2g}' if h < 10 else f'{h:.0f}' for h in hours),
                ' / '.join(memory),
            ]
        )
    return '\n'.join('| ' + ' | '.join(row) + ' |' for row in rows)


def commands(table: Table, run: Run, nodes: int) -> str:
    """Lines for a shell that train one run."""
    plan: Plan = run.plan
    if table.is_small:
        groups = {'one process': [shlex.join(command(plan, run.config(), 1, 'python', None))]}
    else:
        groups = shell_lines(plan, run.config(), nodes)
    lines = []
    for where, of_machine in groups.items():
        lines += [f'# {plan.row.name}, seed {plan.seed}: {where}', *of_machine]
    return '\n'.join(lines)


def describe(table: Table, runs: list[Run], tflops: float, nodes: int) -> str:
    """The whole plan of a table."""
    seeds = ', '.join(dict.fromkeys(str(run.plan.seed) for run in runs))
    parts = [
        f'## {table.title} (--table {table.name}), seeds {seeds}',
        f'Assumed: {tflops:g} TFLOP/s a GPU. Time is that of one seed.',
        estimates(table, runs, tflops, nodes),
        *(commands(table, run, nodes) for run in runs),
    ]
    return '\n\n'.join(parts) + '\n'


def folder_of(work_dir: Path, root: Path) -> Path:
    """``work_dir`` as command lines show it: relative to the repository if it is inside."""
    return work_dir.relative_to(root) if work_dir.is_relative_to(root) else work_dir
