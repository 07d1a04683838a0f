"""What is recorded is what the equations say, and recording changes nothing."""

import copy
from pathlib import Path

import cv2
import pytest
import torch
from attention_equations import expected_records
from torch import nn

from mmdla import DLAResNet, DLAResNet_CIFAR, fold_for_inference, record
from mmdla.analysis.inspection.recording import find_backbone, find_backbones

KINDS = ['DIALSTM', 'DLABase', 'DLALight', 'MRLABase', 'MRLALight']
REDUCED = ('DIALSTM', 'DLABase', 'DLALight')
IMAGES = sorted((Path(__file__).parents[2] / 'data/cifar').glob('cifar100_*.png'))


@pytest.fixture(scope='module')
def images():
    """Four real images, (4, 3, 32, 32), in double precision."""
    images = [torch.from_numpy(cv2.imread(str(path))[..., ::-1].copy()) for path in IMAGES[:4]]
    return torch.stack(images).permute(0, 3, 1, 2).contiguous().double() / 60 - 2


def make(kind, images, ops='auto', form=None, **kwargs):
    """Three blocks a stage, with running statistics of real images."""
    torch.manual_seed(0)
    attention = dict(type=kind) if form is None else dict(type=kind, form=form)
    if kind in REDUCED:
        attention['reduction'] = 4
    if kind != 'DIALSTM':
        attention['ops'] = ops
    model = DLAResNet_CIFAR(
        29, layer_attention=attention, zero_init_residual=False, **kwargs
    ).double()
    with torch.no_grad():
        for p in model.parameters():  # so that gates and weights leave the middle
            p.mul_(1.5)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # just these images
        model.train()(images)
    return model


@pytest.mark.parametrize('gradients', [False, True])
@pytest.mark.parametrize('ops', ['reference', 'fast'])
@pytest.mark.parametrize(
    ('kind', 'form'),
    [*[(kind, None) for kind in KINDS], ('DLABase', 'shared'), ('DLALight', 'shared')],
)
def test_agrees_with_the_equations(kind, form, ops, gradients, images):
    model = make(kind, images, ops, form).eval()
    with torch.no_grad():
        expected = expected_records(model, images)
    with torch.set_grad_enabled(gradients), record(model) as recording:
        model(images)
    stages = recording.stages()
    assert [stage.stage for stage in stages] == ['layer1', 'layer2', 'layer3']
    for stage, wanted in zip(stages, expected, strict=True):
        assert stage.kind == kind
        assert stage.quantities.keys() == wanted.keys()
        for name, value in wanted.items():
            torch.testing.assert_close(getattr(stage, name), value, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize('kind', ['DLABase', 'MRLABase'])
def test_weights_are_those_of_a_softmax(kind, images):
    with record(model := make(kind, images).eval()) as recording:
        model(images)
    for stage in recording.stages():
        weights = stage.weights  # (B, heads, L, L)
        assert torch.equal(weights, weights.tril())
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
        assert weights[..., 2, :].std() > 1e-3, 'it is no mere average'


@pytest.mark.parametrize('with_cp', [False, True])
@pytest.mark.parametrize('ops', ['reference', 'fast'])
@pytest.mark.parametrize('kind', KINDS)
def test_training_is_the_same_bit_for_bit(kind, ops, with_cp, images):
    plain = make(kind, images, ops, with_cp=with_cp)
    watched = copy.deepcopy(plain)
    with record(watched) as recording:
        outs = [model(images) for model in (plain, watched)]
        for out in outs:
            out[-1].square().sum().backward()
    assert len(recording.passes) == 1, 'recomputed blocks are not counted again'
    assert recording.stages()[0].num_blocks == 3
    assert all(torch.equal(a, b) for a, b in zip(*outs, strict=True))
    for a, b in zip(plain.parameters(), watched.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)
    for a, b in zip(plain.buffers(), watched.buffers(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize('kind', KINDS)
def test_inference_is_the_same_bit_for_bit(kind, images):
    model = make(kind, images).eval().float()
    images = images.float()
    with torch.no_grad():
        expected = model(images)
        with record(model):
            got = model(images)
    assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))


def hooks_of(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_leaves_nothing_behind(images):
    model = make('DLABase', images).eval()
    with record(model) as recording:
        model(images)
        assert hooks_of(model) == 2, 'between the passes only those of the backbone'
    model(images)
    assert hooks_of(model) == 0
    assert len(recording.passes) == 1


def test_goes_on_after_a_pass_that_failed(images):
    model = make('DLABase', images).eval()
    with record(model) as recording:
        broken = model.layer2.register_forward_pre_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            model(images)
        broken.remove()
        model(images)
    with record(model) as again:
        model(images)
    assert hooks_of(model) == 0
    assert len(recording.passes) == 1
    assert torch.equal(recording.stages()[2].weights, again.stages()[2].weights)


def test_several_passes_are_joined(images):
    model = make('DLALight', images).eval()
    with record(model) as whole:
        model(images)
    with record(model) as parts:
        model(images[:1])
        model(images[1:])
    for one, other in zip(whole.stages(), parts.stages(), strict=True):
        for name in one.quantities:
            torch.testing.assert_close(getattr(one, name), getattr(other, name))


def test_inside_of_a_larger_model(images):
    model = nn.Sequential(make('DLALight', images), nn.Identity()).eval()
    with record(model) as recording:
        model(images)
    assert recording.stages()[0].gates.shape == (4, 3, 2)


def test_half_precision_and_folded(images):
    model = make('DLABase', images).eval().float()
    images = images.float()
    folded = fold_for_inference(model)
    with torch.no_grad(), record(model) as full, record(folded) as fold:
        model(images)
        folded(images)
    with torch.autocast('cpu', dtype=torch.bfloat16), record(model) as half:
        model(images)
    for wanted, got, rough in zip(full.stages(), fold.stages(), half.stages(), strict=True):
        torch.testing.assert_close(got.weights, wanted.weights, rtol=1e-3, atol=1e-4)
        assert rough.weights.dtype == torch.float32
    wanted, rough = full.stages()[0].weights, half.stages()[0].weights
    torch.testing.assert_close(rough, wanted, rtol=0, atol=0.1)


def test_context_of_the_first_image(images):
    model = make('DLALight', images).eval()
    for stage in model.stages:
        stage.attention.context = 'first'
    with record(model) as recording:
        model(images)
    assert recording.stages()[0].refresh.shape == (4, 3, 64)


@pytest.mark.parametrize(
    'attention', [None, *(dict(type=kind) for kind in ('SE', 'ECA', 'KCLA', 'RLA'))]
)
def test_refuses_what_has_nothing_to_show(attention):
    model = DLAResNet(18, layer_attention=attention)
    name = 'None' if attention is None else attention['type']
    with pytest.raises(ValueError, match=f'DLABase.*got {name}'), record(model):
        pass
    assert hooks_of(model) == 0


def test_refuses_what_is_no_backbone_of_ours():
    with pytest.raises(ValueError, match='DLAResNet, Linear has none'), record(nn.Linear(1, 1)):
        pass


def student_and_teacher(images, teacher: str = 'DLABase') -> nn.ModuleDict:
    student = nn.Sequential()
    student.add_module('backbone', make('DLALight', images))
    return nn.ModuleDict(dict(student=student, teacher=make(teacher, images))).eval()


def test_all_backbones_are_recorded(images):
    """Each as alone, under names of its own; those that did not run are left out."""
    both = student_and_teacher(images)
    with torch.no_grad(), record(both) as recording:
        both['student'](images[:2])
        both['teacher'](images)
        both['student'](images[2:])
    assert recording.backbones == ['student.backbone', 'teacher']
    layers = [f'layer{i}' for i in (1, 2, 3)]
    names = [f'{name}.{layer}' for name in recording.backbones for layer in layers]
    assert [stage.stage for stage in recording.stages()] == names
    assert len(recording.passes) == 3
    for name, backbone in (('student', both['student'].backbone), ('teacher', both['teacher'])):
        with torch.no_grad(), record(backbone) as alone:
            backbone(images)
        for mine, wanted in zip(recording.stages(name), alone.stages(), strict=True):
            assert mine.stage == wanted.stage and mine.kind == wanted.kind
            for quantity, value in wanted.quantities.items():
                torch.testing.assert_close(getattr(mine, quantity), value)
    with torch.no_grad(), record(both) as recording:
        both['teacher'](images)
    assert [stage.stage for stage in recording.stages()] == names[3:]
    assert hooks_of(both) == 0


def test_one_of_two_backbones(images):
    both = student_and_teacher(images)
    choices = ['student', 'student.backbone', both['student'], both['student'].backbone]
    for choice in choices:
        with torch.no_grad(), record(both, backbone=choice) as recording:
            both['student'](images)
            both['teacher'](images)
        assert len(recording.passes) == 1
        assert [stage.stage for stage in recording.stages()] == ['layer1', 'layer2', 'layer3']
    for choice in ('', 'tutor', 'stud', nn.Linear(1, 1)):
        with pytest.raises(ValueError, match='backbone'), record(both, backbone=choice):
            pass
    with pytest.raises(ValueError, match=r"'student\.backbone', 'teacher'"):
        find_backbones(both, 'tutor')
    with pytest.raises(ValueError, match=r"backbone='student\.backbone' or 'teacher'"):
        find_backbone(both)


def test_a_teacher_that_has_nothing_to_show(images):
    both = student_and_teacher(images)
    both['teacher'] = DLAResNet(18, layer_attention=None)
    with record(both) as recording:
        pass
    assert recording.backbones == ['student.backbone']
    with pytest.raises(ValueError, match='got None'), record(both, backbone='teacher'):
        pass


def test_nothing_recorded(images):
    with record(make('DLALight', images)) as recording:
        pass
    with pytest.raises(ValueError, match='no forward pass'):
        recording.stages()
