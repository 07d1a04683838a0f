"""Every layer attention in every backbone and host: it trains, or is refused with the reason.

``dev/feature_table.py`` runs this file and writes the README's table from what passed.
"""

import importlib.util
import re

import pytest
import torch
from attention_lists import ADDING, CROSSING, small
from host_backbones import HOSTS, TOKENS, build, build_host, image, outputs, returns_tokens
from mmengine.registry import DefaultScope

from mmdla import DLAResNet
from mmdla.models.layer_attention import known_types

LIBRARIES = dict(
    mmdet='MMDetection',
    mmpretrain='MMPretrain',
    mmseg='MMSegmentation',
    mmrotate='MMRotate',
    mmpose='MMPose',
)
ATTENTIONS = (*sorted(known_types()), *sorted(TOKENS))
ROWS = [f'DLAResNet, {scope}' for scope in LIBRARIES if importlib.util.find_spec(scope)]
ROWS += [f'{name.partition(".")[2]}, {name.partition(".")[0]}' for name in HOSTS]


def expected(row: str, attention: str) -> str:
    """What the table says: ``'yes'`` starts as the host, ``'trains'`` cannot, ``'no'`` is refused."""
    name = row.split(', ')[0]
    if attention in TOKENS:
        return 'yes' if name != 'DLAResNet' and returns_tokens(name) else 'no'
    if name == 'DLAResNet':
        return 'yes' if attention in ADDING else 'trains'
    return 'yes' if attention in ADDING and attention not in CROSSING else 'no'


@pytest.mark.parametrize('attention', ATTENTIONS)
@pytest.mark.parametrize('row', ROWS)
def test_cell(row, attention, record_property):
    name, scope = row.split(', ')
    found = (
        try_resnet(scope, attention) if name == 'DLAResNet' else try_host(scope, name, attention)
    )
    assert found == expected(row, attention)
    record_property('cell', (row, attention, found))


def try_resnet(scope: str, attention: str) -> str:
    def make(attention, **options):
        torch.manual_seed(0)
        return DLAResNet(
            18,
            base_channels=8,
            stem_channels=8,
            frozen_stages=-1,
            layer_attention=small(attention),
            **options,
        )

    with DefaultScope.overwrite_default_scope(scope):
        if not builds(make, attention):
            return 'no'
        model, plain = make(attention), make(None)
        check_training(model, '.attention.')
        if not builds(make, attention, zero_init_attention=True, name='zero_init_attention'):
            return 'trains'
        model = make(attention, zero_init_attention=True)
    model.load_state_dict(plain.state_dict(), strict=False)
    check_same(model, plain)
    return 'yes'


def try_host(scope: str, name: str, attention: str) -> str:
    name = f'{scope}.{name}'
    if not builds(build, name, attention, name=attention.removesuffix('Tokens')):
        return 'no'
    check_training(build(name, attention, zero_init_attention=False), 'layer_attentions.')
    host, model = build_host(name), build(name, attention)
    model.load_state_dict(host.state_dict(), strict=False)
    check_same(model, host)
    return 'yes'


def builds(make, *args, name: str = 'layer_attention', **kwargs) -> bool:
    """Whether it can be built; if not, the error must say what cannot be."""
    try:
        make(*args, **kwargs)
    except (TypeError, ValueError) as error:
        assert re.search(name, str(error)), error
        return False
    return True


def check_training(model, part: str) -> None:
    """Every parameter of the attention takes part."""
    model.train()
    sum(out.square().mean() for out in outputs(model(image()))).backward()
    of_attention = {
        n: p for n, p in model.named_parameters() if part in f'.{n}' or n.startswith(part)
    }
    assert of_attention
    assert all(p.grad is not None and p.grad.isfinite().all() for p in of_attention.values())


def check_same(model, host) -> None:
    x = image()
    for each in (model, host):  # the train() of some hosts returns None
        each.eval()
    with torch.no_grad():
        got, wanted = outputs(model(x)), outputs(host(x))
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


def test_the_readme_says_so(repo):
    lines = (repo / 'README.md').read_text().splitlines()
    head = next(line for line in lines if line.startswith('| backbone, library |'))
    assert tuple(cell.strip(' `') for cell in head.split('|')[2:-1]) == ATTENTIONS
    for row in ROWS:
        name, scope = row.split(', ')
        title = f'| `{name}`, {LIBRARIES[scope]} |'
        (line,) = (line for line in lines if line.startswith(title))
        cells = [cell.strip() for cell in line.split('|')[2:-1]]
        assert cells == [expected(row, attention) for attention in ATTENTIONS]
