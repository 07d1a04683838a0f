"""Loading into networks whose attention crosses stages: KCLA and RLA."""

import golden_models
import pytest
import torch
from mmengine.runner import load_checkpoint

from mmdla import DLAResNet
from mmdla.checkpoint import CheckpointError, convert_checkpoint, load_backbone

KINDS = {
    'KCLA': dict(type='KCLA', head_channels=4),
    'RLA': dict(type='RLA', hidden_channels=4),
}


def make(attention, **kwargs):
    torch.manual_seed(0)
    model = DLAResNet(18, base_channels=8, layer_attention=attention, **kwargs)
    model.init_weights()
    return model.eval()


def saved(model, path):
    torch.save(model.state_dict(), path)
    return str(path)


def agree(a, b):
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        return all(torch.equal(one, other) for one, other in zip(a(x), b(x), strict=True))


@pytest.mark.parametrize('kind', KINDS)
def test_weights_of_a_resnet(kind, tmp_path):
    """Fit as they are, in frozen stages too; what is new is the attention."""
    plain = make(None, zero_init_residual=False)
    path = saved(plain, tmp_path / 'plain.pth')
    model = make(KINDS[kind], frozen_stages=2, zero_init_attention=True)
    report = load_backbone(model, path)
    assert set(report.loaded) == set(plain.state_dict())
    assert report.new and all('.attention.' in name for name in report.new)
    assert agree(model, plain)
    attention = {name for name, p in model.layer1.named_parameters() if p.requires_grad}
    assert attention and all(name.startswith('attention.') for name in attention)


@pytest.mark.parametrize('kind', KINDS)
def test_own_weights(kind, tmp_path):
    """Whether or not the attention began as the identity."""
    trained = make(KINDS[kind], zero_init_residual=False, zero_init_attention=True)
    for name, parameter in trained.named_parameters():
        if name.endswith('scale') or '.read.' in name:
            torch.nn.init.normal_(parameter)
    path = saved(trained, tmp_path / 'own.pth')
    for zero_init in (True, False):
        model = make(KINDS[kind], zero_init_attention=zero_init)
        if kind == 'KCLA' and not zero_init:
            with pytest.warns(UserWarning, match='zero_init_attention=True'):
                report = load_backbone(model, path)
        else:
            report = load_backbone(model, path)
        assert not report.new and not report.left_out
        assert agree(model, trained)


@pytest.mark.parametrize('whole', [False, True])
def test_a_classifiers_rla_in_a_detector(whole, tmp_path):
    """Which does not return the recurrent map, and so lacks the last steps towards it."""
    classifier = make(dict(KINDS['RLA'], append_state=True), zero_init_residual=False)
    path = saved(classifier, tmp_path / 'classifier.pth')
    model = make(KINDS['RLA'])
    if whole:
        load_checkpoint(model, path)
    else:
        report = load_backbone(model, path)
        assert report.left_out and not report.new
        assert all(name.startswith('layer4.attention.') for name in report.left_out)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        *lower, last = classifier(x)
        for got, expected in zip(model(x), (*lower, last[:, :64]), strict=True):
            assert torch.equal(got, expected)
    with pytest.raises(CheckpointError, match=r'attention weights missing.*output_norm'):
        load_backbone(classifier, saved(model, tmp_path / 'detector.pth'))


def test_the_released_classifier_in_a_detector(tmp_path):
    _, converted = convert_checkpoint(golden_models.Fixture('imagenet_rla_50').released)
    torch.save(dict(state_dict=converted), tmp_path / 'converted.pth')
    model = DLAResNet(50, layer_attention=dict(type='RLA'))
    assert not load_backbone(model, str(tmp_path / 'converted.pth')).new


@pytest.mark.parametrize(
    ('source', 'target'),
    [
        (KINDS['RLA'], KINDS['KCLA']),
        (KINDS['KCLA'], KINDS['RLA']),
        (KINDS['RLA'], dict(KINDS['RLA'], hidden_channels=8)),
        (KINDS['RLA'], dict(KINDS['RLA'], eca=True)),
        (dict(KINDS['RLA'], eca=True), KINDS['RLA']),
        (KINDS['KCLA'], dict(KINDS['KCLA'], head_channels=8)),
        (KINDS['KCLA'], dict(KINDS['KCLA'], restart_block=1)),
        (KINDS['RLA'], None),
    ],
)
def test_other_attention(source, target, tmp_path):
    path = saved(make(source), tmp_path / 'other.pth')
    model = make(target)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError):
        load_backbone(model, path)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
