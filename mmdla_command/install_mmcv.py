"""Compile mmcv with its operations for this environment and install it: ``mmdla install-mmcv``.

mmcv is published as source only for the versions of PyTorch that are needed here. ``pip install``
compiles it in an environment of its own, against another PyTorch or none, and then leaves the
operations out, which detectors need.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from . import mmcv_wheel
from .files import home
from .versions import installed_version

FAMILIES = {'onedl-mmengine': ('onedl', 'onedl-mmcv'), 'mmengine': ('openmmlab', 'mmcv')}
COMPILE_TIME = '7 to 13 minutes on 2 cores'
NEEDED = ('pip', 'setuptools', 'wheel', 'ninja')


class MissingError(RuntimeError):
    """Something has to be installed, or removed, first."""


def build_for(installed: dict[str, str], version: str | None = None) -> mmcv_wheel.Build:
    """Return which mmcv is compiled in an environment with these distributions.

    Args:
        installed (dict): Versions of distributions by name.
        version (str, optional): Of mmcv. Default: the one that the project is tested with.

    Raises:
        MissingError: No MMEngine is there, or two, or no PyTorch.
    """
    families = [FAMILIES[name] for name in FAMILIES if name in installed]
    if len(families) != 1:
        how = 'both are' if families else 'neither is'
        raise MissingError(
            f'one of onedl-mmengine and mmengine has to be installed, {how}: see "Installation" in '
            'the README'
        )
    if 'torch' not in installed:
        raise MissingError('PyTorch has to be installed first: mmcv is compiled against it')
    requirements: Path | None = None
    family, distribution = families[0]
    tested = home() / 'requirements' / f'{family}-mmcv.txt'
    pins = re.findall(rf'^{distribution}==([^\s;]+)', tested.read_text(), re.M)
    if version is None or version in pins:
        version, requirements = pins[0], tested
    return mmcv_wheel.Build(
        distribution, version, installed['torch'], requirements, COMPILE_TIME, sys.prefix
    )


def check_environment() -> None:
    """Refuse an environment that cannot compile, or that would lose an mmcv of another name.

    Raises:
        MissingError: The message names the command that helps.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        packages = ' '.join('"setuptools<82"' if name == 'setuptools' else name for name in missing)
        how = 'python -m ensurepip' if 'pip' in missing else f'pip install {packages}'
        raise MissingError(f'{", ".join(missing)} missing in {sys.prefix}: {how}')
    unwanted = [name for name in ('mmcv-lite', 'onedl-mmcv-lite') if installed_version(name)]
    if unwanted:
        raise MissingError(f'{unwanted[0]} has no operations: pip uninstall {unwanted[0]}')


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``mmdla install-mmcv``; return the exit code."""
    parser = argparse.ArgumentParser(
        prog='mmdla install-mmcv',
        description='Compile mmcv against the PyTorch of this environment and install it. '
        f'The wheel is kept in {mmcv_wheel.cache()} (MMDLA_CACHE moves it).',
    )
    parser.add_argument('--version', help='of mmcv; default: the one that mmdla is tested with')
    parser.add_argument('--cuda', action='store_true', help='with GPU operations, which needs nvcc')
    args = parser.parse_args(argv)
    if args.cuda:
        os.environ['MMDLA_CUDA'] = '1'
    names = ('torch', *FAMILIES)
    installed = {name: found for name in names if (found := installed_version(name))}
    try:
        build = build_for(installed, args.version)
        check_environment()
        print(f'{build.distribution} {build.version} for PyTorch {build.torch}', flush=True)
        wheel = mmcv_wheel.get(build, Path(sys.executable))
    except (MissingError, mmcv_wheel.BuildError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    command = [sys.executable, '-m', 'pip', 'install', '--no-deps', '--force-reinstall', str(wheel)]
    return subprocess.call(command)
