"""The command ``mmdla``, and what of it has to work before PyTorch and MMCV are there.

Modules here import the standard library alone, so that ``mmdla --help`` answers at once and
``mmdla install-mmcv`` runs in an environment in which ``import mmdla`` still fails. Everything
else is done by ``mmdla.cli``, which the scripts in ``tools`` call too.
"""
