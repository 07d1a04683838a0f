"""ResNet checkpoints of every origin load into the backbone, and what does not fit is refused."""

import re

import pytest
import torch
import torchvision
from mmdet.models.backbones import ResNet as DetResNet
from mmengine.logging import HistoryBuffer
from mmpretrain.models.backbones import ResNet as PretrainResNet
from mmpretrain.models.backbones import ResNetV1d

from mmdla import DLAResNet
from mmdla.checkpoint import CheckpointError, load_backbone, read_state_dict


def lively(model):
    torch.manual_seed(7)
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.1, 0.2)
    model.eval()  # the hosts' return None
    return model


def prefixed(state, prefix):
    return {prefix + name: value for name, value in state.items()}


def detector(state):
    return prefixed(state, 'backbone.') | {'rpn_head.conv.weight': torch.zeros(2)}


def old_counters(state):
    return {k: v for k, v in state.items() if 'num_batches_tracked' not in k}


SOURCES = {
    'torchvision': (lambda: torchvision.models.resnet18(), lambda s: s, {}),
    'torchvision-old': (lambda: torchvision.models.resnet18(), old_counters, {}),
    'mmdet': (lambda: DetResNet(18), lambda s: s, {}),
    'mmdet-detector': (lambda: DetResNet(18), lambda s: {'state_dict': detector(s)}, {}),
    'mmpretrain': (
        lambda: PretrainResNet(18),
        lambda s: {
            'meta': {},
            'state_dict': prefixed(s, 'backbone.') | {'head.fc.bias': s['bn1.bias']},
        },
        {},
    ),
    'mmpretrain-v1d': (
        lambda: ResNetV1d(depth=18),
        lambda s: s,
        dict(deep_stem=True, avg_down=True),
    ),
    'data-parallel': (lambda: DetResNet(18), lambda s: {'model': prefixed(s, 'module.')}, {}),
    'three-stages': (
        lambda: DetResNet(18),
        lambda s: s,
        dict(num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1)),
    ),
}


@pytest.mark.parametrize('source', SOURCES)
def test_sources(source, tmp_path):
    make, wrap, args = SOURCES[source]
    host = lively(make())
    path = tmp_path / 'resnet.pth'
    torch.save(wrap(host.state_dict()), path)
    args = dict(depth=18, init_cfg=dict(type='Pretrained', checkpoint=str(path)), **args)
    plain = DLAResNet(**args, layer_attention=None).eval()
    plain.init_weights()
    x = torch.rand(1, 3, 64, 64)
    if isinstance(host, torchvision.models.ResNet):
        expected = host.layer1(host.maxpool(host.relu(host.bn1(host.conv1(x)))))
    else:
        expected = host(x)[0] if len(host(x)) > 1 else None
    if expected is not None:
        assert torch.equal(plain(x)[0], expected)
    dla = DLAResNet(**args).eval()
    dla.init_weights()
    own = plain.state_dict()
    assert all(torch.equal(v, own[k]) for k, v in dla.state_dict().items() if k in own)


def test_report(tmp_path):
    path = tmp_path / 'r18.pth'
    torch.save(torchvision.models.resnet18().state_dict(), path)
    model = DLAResNet(18)
    report = load_backbone(model, str(path))
    assert len(report.loaded) == len(DetResNet(18).state_dict())
    assert report.left_out == ['fc.weight', 'fc.bias']
    assert {n.split('.')[1] for n in report.new} == {'attention'}
    text = str(report)
    assert re.search(r'new: .*layer1\.attention \(\d+\)', text) and 'fc (2)' in text


def test_own_checkpoint_with_attention(tmp_path):
    path = tmp_path / 'dla.pth'
    source = lively(DLAResNet(18))
    torch.save(detector(source.state_dict()), path)
    model = DLAResNet(18, frozen_stages=1, freeze_attention=True)
    report = load_backbone(model, str(path))
    assert not report.new
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.state_dict().values(), source.state_dict().values(), strict=True)
    )


def test_plugins_and_offsets_may_be_new(tmp_path):
    path = tmp_path / 'r50.pth'
    torch.save(DetResNet(50).state_dict(), path)
    model = DLAResNet(
        50,
        plugins=[dict(cfg=dict(type='ContextBlock', ratio=0.25), position='after_conv3')],
        dcn=dict(type='DCNv2', deform_groups=1),
        stage_with_dcn=(False, False, False, True),
        layer_attention=None,
    )
    report = load_backbone(model, str(path))
    assert report.new and all('context_block' in n or 'conv_offset' in n for n in report.new)


def without(state, *names):
    return {k: v for k, v in state.items() if k not in names}


def r18():
    return DetResNet(18).state_dict()


REFUSED = {
    'deeper': (lambda: DetResNet(34).state_dict(), r'not in the model.*layer1\.2\.conv1'),
    'bottlenecks': (lambda: DetResNet(50).state_dict(), r'other shapes.*layer1\.0\.conv1\.weight \(64, 64, 1, 1\)'),
    'wider': (lambda: DetResNet(18, base_channels=32).state_dict(), r'other shapes.*conv1'),
    'another-network': (lambda: torchvision.models.squeezenet1_0().state_dict(), 'not in the model'),
    'one-missing': (lambda: without(r18(), 'layer2.0.conv1.weight'), r'not in the checkpoint \(1\): layer2\.0\.conv1'),
    'nan': (lambda: r18() | {'layer3.0.bn1.bias': torch.full((256,), torch.nan)}, r'NaN.*layer3\.0\.bn1\.bias'),
    'other-reduction': (
        lambda: DLAResNet(18, layer_attention=dict(type='DLALight', reduction=4)).state_dict(),
        r'other shapes.*attention\.dsu',
    ),
    'half-attention': (
        lambda: without(DLAResNet(18).state_dict(), 'layer1.attention.extract.weight'),
        r'attention weights missing: layer1\.attention\.extract',
    ),
    'other-attention': (
        lambda: DLAResNet(18, layer_attention=dict(type='MRLALight')).state_dict(),
        r'attention weights missing: .*dsu',
    ),
    'no-tensors': (lambda: dict(epoch=3), 'no tensors'),
    'a-list': (lambda: [1, 2], 'no state dict'),
}  # fmt: skip


@pytest.mark.parametrize('case', REFUSED)
def test_refused_and_nothing_loaded(case, tmp_path):
    make, words = REFUSED[case]
    path = tmp_path / 'bad.pth'
    torch.save(make(), path)
    content = path.read_bytes()
    model = DLAResNet(18)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=words) as caught:
        load_backbone(model, str(path))
    assert str(path) in str(caught.value)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert path.read_bytes() == content


def test_attention_into_a_plain_resnet_is_refused(tmp_path):
    path = tmp_path / 'dla.pth'
    torch.save(DLAResNet(18).state_dict(), path)
    with pytest.raises(CheckpointError, match='not in the model'):
        load_backbone(DLAResNet(18, layer_attention=None), str(path))


def test_untrained_attention_is_never_frozen(tmp_path):
    path = tmp_path / 'r18.pth'
    torch.save(r18(), path)
    with pytest.raises(CheckpointError, match='freeze_attention'):
        load_backbone(DLAResNet(18, frozen_stages=1, freeze_attention=True), str(path))


def test_missing_truncated_and_foreign_files(tmp_path):
    with pytest.raises(CheckpointError, match='no such'):
        read_state_dict(tmp_path / 'none.pth')
    whole = tmp_path / 'whole.pth'
    torch.save(r18(), whole)
    truncated = tmp_path / 'truncated.pth'
    truncated.write_bytes(whole.read_bytes()[:100_000])
    foreign = tmp_path / 'image.png'
    foreign.write_bytes(b'\x89PNG not a checkpoint')
    for path in (truncated, foreign):
        with pytest.raises(CheckpointError, match='cannot be read'):
            read_state_dict(path)


class Evil:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), 'w'))


@pytest.mark.parametrize('legacy', [False, True])
def test_reading_runs_no_code(tmp_path, legacy):
    path, target = tmp_path / 'evil.pth', tmp_path / 'written'
    torch.save(
        dict(state_dict=r18(), message_hub=HistoryBuffer([1.0], [1]), evil=Evil(target)),
        path,
        _use_new_zipfile_serialization=not legacy,
    )
    state = read_state_dict(path)
    assert not target.exists()
    assert torch.equal(state['conv1.weight'].isfinite().all(), torch.tensor(True))


@pytest.mark.parametrize(
    'entry',
    [3, 'text', None, torch.zeros(2, 2).to_sparse()],
    ids=lambda entry: type(entry).__name__,
)
def test_entries_that_are_no_dense_tensors(tmp_path, entry):
    state = {'conv1.weight': torch.ones(2)}
    torch.save(state, tmp_path / 'a.pth')
    assert read_state_dict(tmp_path / 'a.pth').keys() == state.keys()
    torch.save(state | {'head.extra': entry}, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match=r'no dense tensors: head\.extra'):
        read_state_dict(tmp_path / 'a.pth')
