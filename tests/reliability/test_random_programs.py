"""Whatever a program does with a backbone, the fused operations and the modules agree."""

import dataclasses

import pytest
import random_programs as rp
import torch
from hypothesis import given, settings
from random_programs import Backward, Forward, Grad, Hook, Program, Ref, Setup
from tally import tally

from mmdla.ops import add_relu_pool as operation

LEVELS = (Ref('level', 0), Ref('level', 1))


@settings(max_examples=max(40, 2 * settings.default.max_examples * (settings.default.max_examples > 100)))
@given(rp.programs())
def test_fused_operations_are_the_modules(program):
    trace = rp.check(program)
    tally('programs', 'refused by PyTorch' if trace.error else 'agreed', program)
