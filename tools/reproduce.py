"""Reproduce a table: plan it, check its data, train its rows one after the other, collect them.

Without one of --dry-run, --check-data or --collect the rows are trained. What is finished is not
trained again, and what was interrupted goes on from its last checkpoint.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import mmdla  # noqa: F401 - registers the models
from mmdla.cli.command_line import run as run_tool
from mmdla.errors import InputError
from mmdla.reproduce import collect, plan, tables
from mmdla.reproduce.data import check_table_data
from mmdla.reproduce.launch import Plan
from mmdla.reproduce.records import made_elsewhere
from mmdla.reproduce.runs import Run

ROOT = Path(__file__).resolve().parents[1]
TFLOPS, NODES = 10.0, 2


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--table', choices=tables.NAMES, help='one table; needed for training')
    parser.add_argument('--rows', nargs='+', metavar='ROW', help='some rows; default: all')
    parser.add_argument('--seeds', nargs='+', type=int, help="default: the table's")
    action = parser.add_mutually_exclusive_group()
    action.add_argument('--dry-run', action='store_true', help='print the plan')
    action.add_argument('--check-data', action='store_true', help='are the data there and whole?')
    action.add_argument('--collect', action='store_true', help='table of what is finished')
    parser.add_argument(
        '--tflops', type=float, default=TFLOPS, help='10^12 operations/s a GPU does'
    )
    parser.add_argument(
        '--nodes', type=int, default=NODES, help='machines with 8 GPUs, in the plan'
    )
    parser.add_argument('--gpus', type=int, default=1, help='GPUs of this machine to train on')
    parser.add_argument('--jobs', type=int, default=1, help='trainings side by side')
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs' / 'reproduce')
    parser.add_argument(
        '--deterministic', action='store_true', help='only deterministic algorithms of PyTorch'
    )
    parser.add_argument(
        '--skip-data-check', action='store_true', help='train on data of other size or layout'
    )
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE')
    parser.add_argument(
        '--records', type=Path, metavar='FILE', help='finished runs of elsewhere, not run again'
    )
    args = parser.parse_args(argv)
    for name in ('tflops', 'nodes', 'gpus', 'jobs'):
        if getattr(args, name) <= 0:
            parser.error(f'argument --{name}: must be positive, got {getattr(args, name)}')
    only_show = args.dry_run or args.check_data
    if args.table is None and (not only_show or args.rows or args.cfg_options):
        parser.error('--table is needed: one of ' + ', '.join(tables.NAMES))
    if args.records and args.table is None:
        parser.error('--records is for one --table')
    args.work_dir = args.work_dir.resolve()
    args.records = args.records and args.records.resolve()
    return args


def runs_of(table: tables.Table, args: argparse.Namespace) -> list[Run]:
    """The runs that are asked for.

    Raises:
        InputError: A row is not in the table.
    """
    known = [row.name for row in table.rows]
    if unknown := set(args.rows or ()) - set(known):
        raise InputError(f'--rows {" ".join(sorted(unknown))}: {table.name} has {", ".join(known)}')
    rows = [row for row in table.rows if not args.rows or row.name in args.rows]
    seeds = table.seeds if args.seeds is None else tuple(dict.fromkeys(args.seeds))
    folder = plan.folder_of(args.work_dir, ROOT) / table.name
    options = tuple(args.cfg_options)
    return [
        Run(table, Plan(row, s, folder / row.name / f'seed{s}', options, args.deterministic), ROOT)
        for row in rows
        for s in seeds
    ]


def check_data(args: argparse.Namespace, names: Sequence[str]) -> None:
    """Look at the data of all the tables before saying what is wrong.

    Raises:
        InputError: Something is missing.
    """
    problems: dict[str, str] = {}  # tables by what is wrong with their data, which some share
    for name in names:
        table = tables.read_table(name, ROOT)
        try:
            check_table_data(table, runs_of(table, args)[0].config())
        except InputError as error:
            others = problems.get(str(error))
            problems[str(error)] = f'{others}, {name}' if others else name
        else:
            print(f'{name}: {table.images["train"]} and {table.images["val"]} images')
    if problems:
        raise InputError('\n\n'.join(f'{of}: {error}' for error, of in problems.items()))


def train(table: tables.Table, runs: list[Run], args: argparse.Namespace) -> None:
    if not args.skip_data_check:
        check_table_data(table, runs[0].config(), may_download=True)
    seeds = dict.fromkeys(run.plan.seed for run in runs)
    if args.records:
        known = made_elsewhere(runs, args.records)
        runs = [run for run in runs if run.plan.seed not in known.get(run.plan.row.name, ())]
    # all rows of a seed before those of the next, so that what is finished can be compared
    ordered = sorted(runs, key=lambda run: list(seeds).index(run.plan.seed))
    with ThreadPoolExecutor(args.jobs) as pool:
        try:
            for _ in pool.map(partial(train_one, args.gpus), ordered):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def train_one(gpus: int, run: Run) -> None:
    where = f'{run.plan.row.name}, seed {run.plan.seed}'
    print(f'\n{where}', flush=True)
    result = run.execute(gpus)
    print(f'{where}: ' + ', '.join(f'{k} {v:.2f}' for k, v in result.items()), flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    os.chdir(ROOT)  # where the configs' data folders and the tools are
    names = [args.table] if args.table else tables.NAMES
    if args.check_data:
        check_data(args, names)
        return
    for name in names:
        table = tables.read_table(name, ROOT)
        runs = runs_of(table, args)
        if args.dry_run:
            print(plan.describe(table, runs, args.tflops, args.nodes), flush=True)
        else:
            if not args.collect:
                train(table, runs, args)
            lines = collect.collect(runs, args.records)
            options = tuple(args.cfg_options)
            text = collect.write(table, lines, args.work_dir / name, ROOT, options)
            if table.is_small:
                from mmdla.reproduce.figures import draw  # with matplotlib, which takes its time

                draw(table, lines, args.work_dir / name / 'results.svg', ROOT)
            print('\n' + text)


if __name__ == '__main__':
    try:
        sys.exit(run_tool(main))
    except KeyboardInterrupt:
        sys.exit('\ninterrupted; the same command goes on from here')
