"""``zero_init_attention``: the network starts as the ResNet whose weights it loads, and learns."""

import pytest
import torch
from mmdet.models.backbones import ResNet

from mmdla import DLAResNet

ADDING = ['DLALight', 'DLABase', 'MRLALight', 'MRLABase']


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
        assert all(any(f'layer{s}.attention.blocks' in n for n in moved) for s in (1, 2, 3, 4))
    assert any('value' in n for n in moved), 'the second step reaches the convolutions'


@pytest.mark.parametrize('layer_attention', [dict(type='SE'), dict(type='DIALSTM'), None])
def test_refused_where_it_cannot_be(layer_attention):
    with pytest.raises(ValueError, match='zero_init_attention'):
        DLAResNet(18, layer_attention=layer_attention, zero_init_attention=True)
