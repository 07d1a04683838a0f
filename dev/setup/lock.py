"""Pin every package that the set-ups install, with the hashes of all its files.

``make lock`` runs it. Every ``requirements/NAME.txt`` is written anew from its ``NAME.in``, for
Linux and the versions of Python of its stack at once. Versions that are locked already stay, if the
``.in`` files still allow them; ``--upgrade`` looks for newer ones.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from stacks import BUILD, DOCS, MAINTENANCE, ONEDL, REQUIREMENTS, STACKS, lock

UV = Path(sys.executable).with_name('uv')


class Lock(NamedTuple):
    """One file of pins: the names of what it is made from, for which Python, how."""

    name: str
    sources: tuple[str, ...]
    pythons: tuple[tuple[int, int], tuple[int, int]]
    dependencies: bool = True


LOCKS = (
    Lock(BUILD, (BUILD,), ONEDL.pythons),
    *(
        Lock(*made)
        for stack in STACKS.values()
        for made in (
            (stack.name, (BUILD, stack.name), stack.pythons),
            (f'{stack.name}-mm', (f'{stack.name}-mm',), stack.pythons, False),
            (f'{stack.name}-mmcv', (f'{stack.name}-mmcv',), stack.pythons, False),
        )
    ),
    *(Lock(name, (name,), ONEDL.pythons) for name in (MAINTENANCE, DOCS)),
)


def main(options: list[str]) -> int:
    for made in LOCKS:
        print(f'requirements/{made.name}.txt', flush=True)
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, 'pyproject.toml').write_text(project(made))
            if subprocess.run([*command(made, folder), *options], cwd=REQUIREMENTS).returncode:
                return 1
    return 0


def project(made: Lock) -> str:
    """Return a project file, the only place where uv lets one limit what it resolves for."""
    first, last = made.pythons
    after = f'{last[0]}.{last[1] + 1}'
    where = f"sys_platform == 'linux' and python_version >= '{first[0]}.{first[1]}'"
    return f'[tool.uv]\nenvironments = ["{where} and python_version < \'{after}\'"]\n'


def command(made: Lock, folder: str) -> list[str]:
    options = ['--quiet', '--project', folder, '--universal', '--generate-hashes', '--no-annotate']
    options += ['--python-version', '.'.join(map(str, made.pythons[0]))]
    options += ['--custom-compile-command', 'make lock']
    options += [] if made.dependencies else ['--no-deps']
    sources = [f'{name}.in' for name in made.sources]
    return [str(UV), 'pip', 'compile', *options, *sources, '-o', lock(made.name).name]


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
