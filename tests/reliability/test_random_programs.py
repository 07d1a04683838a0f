"""Whatever a program does with a backbone, the fused operations and the modules agree.

``python tests/reliability/random_programs.py 1000`` runs a thousand, in two or three minutes.
"""

import pytest
from attention_lists import FUSED
from hypothesis import given, settings
from program_runs import run
from program_strategies import programs
from program_traces import compare
from programs import Backward, Forward, Grad, Hook, Program, Ref, Setup
from random_programs import check
from tally import tally

from mmdla.models.layer_attention import multi_head
from mmdla.models.resnet import blocks

LAST, ROOTS = Ref('level', 1), (Ref('level', 0), Ref('level', 1))


@settings(max_examples=max(40, 2 * (settings.default.max_examples - 25)))
@given(programs())
def test_fused_operations_are_the_modules(program):
    trace = check(program)
    tally('programs', 'refused by PyTorch' if trace.error else 'agreed', program)


@pytest.mark.parametrize('kind', FUSED)
@pytest.mark.parametrize('training', [False, True])
def test_part_of_a_graph_and_then_another(kind, training):
    """The gradient of a level at one block, then a loss on what an earlier block received."""
    hooks = Hook('forward_pre', 'layer2.2'), Hook('forward_pre', 'layer2.3')
    steps = (Forward(), Grad((LAST,), (Ref('map', 1),)), Backward((Ref('map', 0),)))
    check(Program(Setup(kind, depth=50, training=training, norm_eval=True), hooks, steps))


@pytest.mark.parametrize('kind', FUSED)
@pytest.mark.parametrize('module', ['layer1.1', 'layer2.1'])
def test_parameters_without_a_part_have_no_gradient(kind, module):
    """What a block does not see of the one before; an optimizer would step with a zero."""
    for root in (LAST, ROOTS[0]):
        steps = (Forward(), Backward((root,)))
        check(Program(Setup(kind), (Hook('detach_input', module),), steps))


@pytest.mark.parametrize('kind', FUSED)
def test_drop_path_of_blocks_without_gradients(kind):
    """Batch norms in eval mode, no gradients, and still samples are dropped."""
    check(
        Program(Setup(kind, norm_eval=True, drop_path=0.5, batch=3), (), (Forward(no_grad=True),))
    )


@pytest.mark.parametrize('kind', FUSED)
@pytest.mark.parametrize('module', ['layer1.1.drop_path', 'layer1.1.relu', 'layer1.1.bn2'])
def test_hooks_in_a_block_without_gradients(kind, module):
    hooks = Hook('forward_pre_kwargs', module), Hook('scale_output', module)
    check(Program(Setup(kind, training=False), hooks, (Forward(no_grad=True),)))


@pytest.mark.parametrize('kind', FUSED)
@pytest.mark.parametrize(
    'hook',
    [Hook('scale_output', 'layer1.0.relu'), Hook('forward', 'layer1.attention.blocks.0.value')],
)
def test_unheeded_hooks_are_noticed(kind, hook, monkeypatch):
    program = Program(Setup(kind), (hook,), (Forward(), Backward(ROOTS)))
    expected = check(program)
    monkeypatch.setattr(multi_head, 'kernels_run', lambda *_: True)
    assert compare(run(program, 'fast'), expected)


@pytest.mark.parametrize('kind', FUSED)
def test_overwritten_maps_are_noticed(kind, monkeypatch):
    hooks = (Hook('forward', 'layer1.0.bn1'),)
    program = Program(Setup(kind, training=False), hooks, (Forward(no_grad=True),))
    check(program)
    monkeypatch.setattr(blocks, 'makes_new_maps', lambda *_: True)
    with pytest.raises(AssertionError, match='overwritten: hook 0'):
        check(program)


@pytest.mark.parametrize('kind', FUSED)
def test_wrong_gradients_are_noticed(kind, monkeypatch):
    steps = (Forward(), Grad(ROOTS, (Ref('image'), Ref('parameter', 3))), Backward((LAST,)))
    program = Program(Setup(kind), (), steps)
    check(program)
    step = multi_head.MultiHeadAttention.run_fused

    def detached(self, index, block, x, shortcut, state):
        return step(self, index, block, x, shortcut.detach(), state)

    monkeypatch.setattr(multi_head.MultiHeadAttention, 'run_fused', detached)
    with pytest.raises(AssertionError, match=r'gradient|grad'):
        check(program)
