"""Combinations of packages that are known not to work, said at import instead of found out later.

Only what pip knows of the installed packages is read (a few milliseconds): a package that cannot
be imported is named all the same.
"""

import re
import warnings
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

# Distributions that bring the same import name, and so write over each other's files.
SAME_NAME = {
    'mmengine': ('mmengine', 'mmengine-lite', 'onedl-mmengine'),
    'mmcv': ('mmcv', 'mmcv-lite', 'mmcv-full', 'onedl-mmcv', 'onedl-mmcv-lite'),
    'mmdet': ('mmdet', 'onedl-mmdetection'),
    'mmpretrain': ('mmpretrain', 'onedl-mmpretrain'),
}
DETECTORS = {'mmdet', 'onedl-mmdetection'}
LITE = {'mmcv-lite', 'onedl-mmcv-lite'}
WITHOUT_OPERATIONS = (
    'mmcv was built without its operations, which detectors need: `import mmdet.models` fails. '
    '`mmdla install-mmcv` compiles and installs one that has them.'
)
OTHERS = ('torch', 'numpy', 'setuptools')
TESTED = 'The table "Versions" of the README names combinations that were tested.'


class CombinationWarning(UserWarning):
    """Installed packages do not work together; what does not need the combination still may."""


def check_combinations() -> None:
    """Speak of installed packages that do not work together.

    Raises:
        ImportError: mmdla itself cannot work so.
    """
    names = {name for group in SAME_NAME.values() for name in group} | set(OTHERS)
    installed = {name: found for name in sorted(names) if (found := installed_version(name))}
    errors, notes = find_troubles(installed)
    if errors:
        raise ImportError('\n'.join((*errors, TESTED)), name='mmdla')
    for note in notes:
        warnings.warn(f'{note}\n{TESTED}', CombinationWarning, stacklevel=3)
    if DETECTORS & installed.keys() and not LITE & installed.keys() and not has_operations():
        warnings.warn(WITHOUT_OPERATIONS, CombinationWarning, stacklevel=3)


def has_operations() -> bool:
    """Return whether the mmcv of this environment has compiled operations; True without mmcv."""
    spec = find_spec('mmcv')
    folders = spec.submodule_search_locations if spec else None
    return not folders or any(any(Path(folder).glob('_ext*')) for folder in folders)


def installed_version(name: str) -> str | None:
    """Return what pip knows of a distribution."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def find_troubles(installed: dict[str, str]) -> tuple[list[str], list[str]]:
    """Errors and warnings about versions of distributions, by name."""
    errors, notes = [], []
    for module, names in SAME_NAME.items():
        present = [name for name in names if name in installed]
        if len(present) > 1:
            errors.append(
                f'{" and ".join(present)} are both installed. Both bring {module!r} and write over '
                f"each other's files: pip uninstall {' '.join(present)}, then install one of them."
            )
    if before(installed, 'mmcv', '2') or 'mmcv-full' in installed:
        errors.append(
            f'mmcv {installed.get("mmcv") or installed["mmcv-full"]} is of the OpenMMLab before '
            'MMEngine: mmcv >= 2.0 is needed.'
        )
    mmengine = installed.get('mmengine') or installed.get('mmengine-lite')
    if 'mmdet' in installed and since(installed, 'mmcv', '2.2'):
        notes.append(
            f'mmdet {installed["mmdet"]} refuses mmcv {installed["mmcv"]}: it needs '
            'mmcv >= 2.0, < 2.2, for instance 2.1.0.'
        )
    if DETECTORS & installed.keys() and LITE & installed.keys():
        notes.append(
            'mmcv-lite has no compiled ops, which detectors need: uninstall it, then run '
            '`mmdla install-mmcv`.'
        )
    if mmengine and since(installed, 'torch', '2.6'):
        notes.append(
            f'mmengine {mmengine} cannot read its own checkpoints with torch {installed["torch"]}, '
            'which refuses other objects than tensors (weights_only): use torch < 2.6, '
            'or the family of onedl-mmengine.'
        )
    if mmengine and since(installed, 'setuptools', '82'):
        notes.append(
            f'mmengine {mmengine} needs pkg_resources, which setuptools {installed["setuptools"]} '
            'does not have: pip install "setuptools<82".'
        )
    if before(installed, 'torch', '2.3') and since(installed, 'numpy', '2'):
        notes.append(
            f'torch {installed["torch"]} does not work with numpy {installed["numpy"]}: '
            'pip install "numpy<2".'
        )
    return errors, notes


def since(installed: dict[str, str], name: str, first: str) -> bool:
    """Return whether a distribution is there in version ``first`` or later."""
    return name in installed and numbers(installed[name]) >= numbers(first)


def before(installed: dict[str, str], name: str, last: str) -> bool:
    """Return whether a distribution is there in a version before ``last``."""
    return name in installed and numbers(installed[name]) < numbers(last)


def numbers(text: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: ``'2.11.0+cpu'`` is (2, 11, 0).

    ``packaging.version`` may not be installed yet, and takes the ``2.6.0a0`` of NVIDIA's containers
    for a version before 2.6.
    """
    match = re.match(r'\d+(\.\d+)*', text)
    return tuple(map(int, match[0].split('.'))) if match else ()
