"""``zero_init_attention``: the network starts as the ResNet whose weights it loads, and learns."""

import pytest
import torch
from attention_lists import ADDING
from mmdet.models.backbones import ResNet

from mmdla import DLAResNet


@pytest.mark.parametrize('kind', ADDING)
@pytest.mark.parametrize('depth', [18, 50])
def test_starts_as_the_resnet_and_moves(kind, depth, tmp_path):
    torch.manual_seed(0)
    host = ResNet(depth, norm_eval=False)
    for name, value in host.state_dict().items():
        if name.endswith(('running_mean', 'running_var')):
            value.uniform_(0.5, 1)
    torch.save(host.state_dict(), tmp_path / 'resnet.pth')
    model = DLAResNet(
        depth,
        layer_attention=dict(type=kind),
        zero_init_attention=True,
        init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'resnet.pth')),
    )
    model.init_weights()
    x = torch.randn(2, 3, 64, 64)
    model.eval()
    host.eval()
    assert all(torch.equal(a, b) for a, b in zip(model(x), host(x), strict=True))

    model.train()
    before = {n: p.clone() for n, p in model.named_parameters() if '.attention.' in n}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        sum(out.square().mean() for out in model(x)).backward()
        optimizer.step()
        moved = {n for n, p in model.named_parameters() if n in before and (p != before[n]).any()}
        assert all(any(f'layer{s}.attention.' in n for n in moved) for s in (1, 2, 3, 4))
    behind = 'project' if kind == 'RLA' else 'value'
    assert any(behind in n for n in moved), 'the second step reaches the convolutions'


@pytest.mark.parametrize('kind', ADDING)
def test_whatever_the_parameters_were_before(kind):
    """Those of norms too, which a method of initialization may have set."""
    torch.manual_seed(0)
    attention = dict(type=kind, **({} if kind == 'RLA' else dict(head_channels=8)))
    if kind.startswith('DLA'):
        attention['reduction'] = 4
    small = dict(depth=18, base_channels=8, stem_channels=8)
    model = DLAResNet(**small, layer_attention=attention).double().eval()
    host = DLAResNet(**small, layer_attention=None).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    host.load_state_dict(model.state_dict(), strict=False)
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    before = [(a - b).abs().max() > 1e-3 for a, b in zip(model(x), host(x), strict=True)]
    for stage in model.stages:
        stage.attention.start_as_identity()
    assert all(before)
    torch.testing.assert_close(model(x), host(x), rtol=1e-12, atol=1e-12)


def test_random_attention_makes_features_grow_from_block_to_block(resnet_checkpoint):
    """Why there is such an option: block by block the outputs leave those of the ResNet."""
    ratios = []
    outputs = {}
    for attention in (None, dict(type='DLALight', reduction=20)):
        torch.manual_seed(0)
        checkpoint = dict(type='Pretrained', checkpoint=str(resnet_checkpoint(50)))
        model = DLAResNet(50, layer_attention=attention, init_cfg=checkpoint)
        model.init_weights()
        with torch.no_grad():
            outputs[bool(attention)] = model.eval()(torch.randn(1, 3, 96, 96))
    ratios = [
        (grown.norm() / plain.norm()).item()
        for grown, plain in zip(outputs[True], outputs[False], strict=True)
    ]
    assert ratios == sorted(ratios) and ratios[0] > 1.1 and ratios[-1] > 2, ratios


@pytest.mark.parametrize(
    'layer_attention',
    [
        dict(type='SE'),
        dict(type='DIALSTM'),
        dict(type='RLA', eca=True),
        dict(type='RLA', append_state=True),
        None,
    ],
)
def test_refused_where_it_cannot_be(layer_attention):
    with pytest.raises(ValueError, match='zero_init_attention'):
        DLAResNet(18, layer_attention=layer_attention, zero_init_attention=True)
