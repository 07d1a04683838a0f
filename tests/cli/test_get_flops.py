"""``tools/get_flops.py``: what it counts, against the numbers of the papers and by hand."""

import re

import pytest
from mmengine.config import Config

from mmdla.analysis.complexity import measure_shares
from mmdla.models.layer_attention import known_types


@pytest.fixture
def rows(tool, capsys):
    """``rows(*argv)``: parameters in millions and GMACs by part, as the tool prints them."""

    def call(*argv) -> dict[str, tuple[float, float]]:
        capsys.readouterr()
        tool('get_flops')([str(arg) for arg in argv])
        lines = capsys.readouterr().out.rpartition('GMACs')[2].splitlines()[1:]
        cells = [re.split(r'\s{2,}', line.strip()) for line in lines]
        return {name: (float(params), float(macs)) for name, params, _, macs, _ in cells}

    return call


def test_published_sizes(rows, repo):
    """ResNet-50 and DLA-L, r = 16, at 224x224, as the paper's code counts them."""
    plain = rows(repo / 'configs/imagenet_plain_r50.py')
    assert plain['total'] == (25.557, 4.089)
    ours = rows(repo / 'configs/imagenet_dla_l_r50.py')
    assert ours['total'] == (28.582, 4.205)
    assert ours['head'] == (2.049, 0.002)
    attention = ours['of it layer attention']
    assert attention[0] == pytest.approx(28.582 - 25.557, abs=1e-3)
    assert attention[1] == pytest.approx(4.205 - 4.089, abs=2e-3)
    assert 'of it layer attention' not in plain


@pytest.mark.parametrize('kind', known_types())
def test_attention_is_the_difference_to_a_plain_network(repo, kind):
    cfg = Config.fromfile(repo / 'configs/cifar100_plain.py')
    plain, parts, none = measure_shares(cfg)
    assert (none.parameters, none.macs) == (0, 0)
    assert [part.name for part in parts] == ['backbone', 'neck', 'head']
    cfg.model.backbone.layer_attention = dict(type=kind)
    model, parts, attention = measure_shares(cfg)
    assert attention.parameters == model.parameters - plain.parameters > 0
    assert attention.macs == model.macs - plain.macs > 0
    assert sum(part.parameters for part in parts) == model.parameters
    assert sum(part.macs for part in parts) == model.macs


def test_parts_of_a_detector(repo):
    cfg = Config.fromfile(repo / 'configs/mask_rcnn_dla_r50.py')
    model, parts, _ = measure_shares(cfg, (256, 320))
    names = ['backbone', 'neck', 'rpn_head', 'roi_head.bbox_head', 'roi_head.mask_head']
    assert [part.name for part in parts] == names
    assert sum(part.parameters for part in parts) == model.parameters
    assert sum(part.macs for part in parts) == model.macs
    macs = {part.name: part.macs for part in parts}
    box_head = 256 * 7 * 7 * 1024 + 1024 * 1024 + 1024 * (81 + 320)
    assert macs['roi_head.bbox_head'] == 1000 * box_head


def test_shape_and_options(rows, small_config):
    small = rows(small_config, '--shape', 64, 96)
    large = rows(small_config, '--shape', 128, 192)
    assert large['backbone'][1] == pytest.approx(4 * small['backbone'][1], rel=0.02)
    assert large['total'][0] == small['total'][0]
    plain = rows(
        small_config, '--shape', 64, 96, '--cfg-options', 'model.backbone.layer_attention=None',
        'model.backbone.zero_init_attention=False',
    )  # fmt: skip
    assert plain['bbox_head'] == small['bbox_head']
    assert plain['backbone'][0] < small['backbone'][0]


@pytest.mark.parametrize(
    ('argv', 'words'),
    [
        (['nowhere.py'], 'no config file nowhere.py'),
        (['{config}', '--cfg-options', 'modle.backbone.depth=18'], "did you mean 'model'"),
    ],
)
def test_bad_input(cli, repo, argv, words):
    config = repo / 'configs/retinanet_dla_r50.py'
    code, message = cli('get_flops', *(arg.format(config=config) for arg in argv))
    assert code == 2
    assert words in message


@pytest.mark.parametrize('shape', [['0', '224'], ['-1', '8'], ['a', '8'], ['224']])
def test_bad_shape(tool, repo, capsys, shape):
    with pytest.raises(SystemExit) as error:
        tool('get_flops')([str(repo / 'configs/cifar10_dla_l.py'), '--shape', *shape])
    assert error.value.code == 2
    assert '--shape' in capsys.readouterr().err


def test_other_library_and_other_detectors(cli, tmp_path):
    config = tmp_path / 'segmenter.py'
    config.write_text("default_scope = 'mmseg'\nmodel = dict(type='EncoderDecoder')\n")
    code, message = cli('get_flops', config)
    assert code == 2
    assert "'mmseg'" in message
    config.write_text("_base_ = 'mmdet::detr/detr_r50_8xb2-150e_coco.py'\n")
    code, message = cli('get_flops', config)
    assert code == 2
    assert 'DETR cannot be counted' in message
