"""The two sets of packages that the tests are run on, one for each OpenMMLab family.

``requirements/NAME.in`` says what a stack asks for, ``NAME.txt`` (by ``make lock``) what it gets,
with hashes. ``NAME-mm`` holds the packages installed without their dependencies, ``NAME-mmcv`` the
one that is compiled.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # the clone: nothing is installed yet
    sys.path.insert(0, str(ROOT))

from mmdla_command.mmcv_wheel import Build  # noqa: E402

REQUIREMENTS = ROOT / 'requirements'
BUILD = 'build'  # what installs the rest, and builds packages that have no wheel
MAINTENANCE = 'maintain'  # what makes and audits the locks
DOCS = 'docs'  # what builds the site


class PinError(RuntimeError):
    """A requirements file does not say what it should."""


class Stack(NamedTuple):
    """One set of packages and the environment it lives in.

    Args:
        name (str): Name of the family, and of its files in ``requirements``.
        venv (str): Folder of the environment, in the clone.
        mmcv (str): Name of the distribution that brings ``mmcv``.
        pythons (tuple): First and last version of Python that all packages have files for.
        compile_time (str): How long mmcv is compiled.
    """

    name: str
    venv: str
    mmcv: str
    pythons: tuple[tuple[int, int], tuple[int, int]]
    compile_time: str

    def lock(self, part: str = '') -> Path:
        """Return the file with hashes; ``part``: ``'mm'``, ``'mmcv'`` or nothing, for the rest."""
        return lock(f'{self.name}-{part}' if part else self.name)

    def pin(self, package: str, part: str = '') -> str:
        """Return the version that a lock pins."""
        path = self.lock(part)
        match = re.search(rf'^{package}==([^\s;]+)', path.read_text(), re.M)
        if not match:
            raise PinError(f'{path.parent.name}/{path.name} does not pin {package}')
        return match[1]

    def mmcv_build(self) -> Build:
        """Return what is compiled for this stack."""
        return Build(
            distribution=self.mmcv,
            version=self.pin(self.mmcv, 'mmcv'),
            torch=self.pin('torch'),
            requirements=self.lock('mmcv'),
            compile_time=self.compile_time,
            environment=self.venv,
        )


def lock(name: str) -> Path:
    """Return the file of pins with hashes that ``make lock`` writes from ``NAME.in``."""
    return REQUIREMENTS / f'{name}.txt'


ONEDL = Stack(
    name='onedl',
    venv='.venv',
    mmcv='onedl-mmcv',
    pythons=((3, 10), (3, 13)),
    compile_time='12-13 minutes on 2 cores',
)
OPENMMLAB = Stack(
    name='openmmlab',
    venv='.venv-openmmlab',
    mmcv='mmcv',
    pythons=((3, 10), (3, 12)),
    compile_time='7 minutes on 2 cores',
)
STACKS = {stack.name: stack for stack in (ONEDL, OPENMMLAB)}
