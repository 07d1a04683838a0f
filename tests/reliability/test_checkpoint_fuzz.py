"""Damaged checkpoints: loaded rightly or refused with their path, and nothing of them is executed."""

import os
import random
from functools import partial

import checkpoint_damage as damage
import pytest
import torch
from hypothesis import settings
from mmengine.config import Config
from mmengine.runner import Runner
from tally import tally

from mmdla import DLAResNet_CIFAR
from mmdla.apis.model import load_model
from mmdla.checkpoint import CheckpointError, load_backbone
from mmdla.checkpoint.restricted import restricted_loading
from mmdla.errors import InputError

ROUNDS = settings.default.max_examples  # 25 in the suite
ARGS = dict(depth=11, base_channels=4, layer_attention=dict(type='DLABase', head_channels=4, reduction=2))  # fmt: skip
CLASSIFIER = dict(
    default_scope='mmpretrain',
    model=dict(
        type='ImageClassifier',
        backbone=dict(type='DLAResNet_CIFAR', out_indices=(2,), **ARGS),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=10, in_channels=64),
    ),
)


def trained():
    torch.manual_seed(3)
    return DLAResNet_CIFAR(**ARGS)


def fresh():
    torch.manual_seed(4)
    return DLAResNet_CIFAR(**ARGS)


def copy_of(model):
    return {name: v.clone() for name, v in model.state_dict().items()}


def same(a, b) -> bool:
    return all(torch.equal(v, b[name]) for name, v in a.items())


@pytest.fixture(scope='module')
def state():
    return copy_of(trained())


def by_function(path):
    model = fresh()
    return model, partial(load_backbone, model, str(path))


def by_init_cfg(path):
    model = fresh()
    model.pretrained_cfg = dict(type='Pretrained', checkpoint=str(path))
    return model, model.init_weights


def outcome_of(make, path, state, damaged=True) -> str:
    """Load; whatever happens, the weights are the file's or those from before."""
    model, load = make(path)
    before = copy_of(model)
    try:
        load()
    except CheckpointError as error:
        assert str(path) in str(error)
        if make is by_function:
            assert same(copy_of(model), before), 'half loaded'
        return 'refused'
    after = copy_of(model)
    assert all(v.isfinite().all() for v in after.values())
    if not damaged:
        assert same(state, after), 'other weights than those of the file'
    return 'loaded'


@pytest.mark.parametrize('kind', damage.REFUSED, ids=lambda f: f.__name__)
def test_wrong_contents_are_refused(kind, state, tmp_path):
    path = tmp_path / 'a weight ü.pth'
    for i in range(ROUNDS // 3):
        rng = random.Random(i)
        legacy = rng.random() < 0.3
        path.write_bytes(damage.saved(kind(dict(state), rng), legacy=legacy))
        make = by_init_cfg if i % 4 == 0 else by_function
        assert outcome_of(make, path, state) == 'refused'
        tally('damaged checkpoints', 'refused', (kind.__name__, i))


@pytest.mark.parametrize('kind', damage.ACCEPTED, ids=lambda f: f.__name__)
def test_wrapped_contents_are_loaded(kind, state, tmp_path):
    for i in range(ROUNDS // 3):
        rng = random.Random(i)
        path = tmp_path / 'a weight ü.pth'
        path.write_bytes(damage.saved(kind(dict(state), rng), legacy=rng.random() < 0.3))
        assert outcome_of(by_function, path, state, damaged=False) == 'loaded'
        tally('damaged checkpoints', 'loaded rightly', (kind.__name__, i))


@pytest.mark.parametrize('legacy', [False, True], ids=['zip', 'legacy'])
@pytest.mark.parametrize('kind', sorted({*damage.BYTES}, key=str), ids=lambda f: f.__name__)
def test_damaged_bytes(kind, legacy, state, tmp_path):
    """A zip file that loads has the right weights; the old format has no checksums to tell by."""
    whole = damage.saved(dict(meta={}, state_dict=state), legacy=legacy)
    path = tmp_path / 'damaged.pth'
    for i in range(ROUNDS):
        path.write_bytes(kind(whole, random.Random(i)))
        outcome = outcome_of(by_function, path, state, damaged=legacy)
        tally('damaged checkpoints', outcome if legacy or outcome == 'refused' else 'loaded rightly',
              (kind.__name__, legacy, i))  # fmt: skip


def test_other_files(state, tmp_path):
    files = {name: tmp_path / name for name in damage.other_files(state)}
    for name, data in damage.other_files(state).items():
        files[name].write_bytes(data)
    files['folder'] = tmp_path
    files['nothing'] = tmp_path / 'nothing'
    files['loop'] = tmp_path / 'loop'
    files['loop'].symlink_to(files['loop'])
    for name, path in files.items():
        for make in (by_function, by_init_cfg):
            assert outcome_of(make, path, state) == 'refused', name
        tally('damaged checkpoints', 'refused', name)


def test_unreadable_file(state, tmp_path):
    path = tmp_path / 'secret.pth'
    path.write_bytes(damage.saved(state))
    path.chmod(0)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)  # root may read everything
    try:
        assert outcome_of(by_function, path, state) == 'refused'
    finally:
        if root:
            os.seteuid(0)
    tally('damaged checkpoints', 'refused', 'unreadable')


@pytest.mark.parametrize('legacy', [False, True], ids=['zip', 'legacy'])
def test_nothing_is_executed(state, tmp_path, legacy):
    target = tmp_path / 'written'
    for i, call in enumerate(damage.evil_calls(target)):
        for where in ('beside', 'inside', 'instead'):
            evil = damage.Evil(call)
            content = dict(beside=dict(state_dict=state, evil=evil),
                           inside=state | {'evil': evil}, instead=evil)[where]  # fmt: skip
            path = tmp_path / 'evil.pth'
            path.write_bytes(damage.saved(content, legacy=legacy))
            outcome = outcome_of(by_function, path, state, damaged=False)
            assert outcome == ('loaded' if where == 'beside' else 'refused')
            with restricted_loading():  # as tools/train.py and tools/test.py let MMEngine read
                torch.load(path)
            assert not target.exists(), call
            tally('damaged checkpoints', f'evil: {outcome}, not executed', (i, where, legacy))


def test_the_test_is_able_to_fail(state, tmp_path):
    """The same files do write theirs when they are loaded as PyTorch does."""
    target = tmp_path / 'written'
    path = tmp_path / 'evil.pth'
    path.write_bytes(damage.saved(damage.Evil(damage.evil_calls(target)[0])))
    torch.load(path, weights_only=False)
    assert target.exists()


def test_a_checkpoint_without_checksums_loads(state, tmp_path):
    """PyTorch can leave them out when it saves."""
    path = tmp_path / 'plain.pth'
    try:
        torch.serialization.set_crc32_options(False)
    except AttributeError:  # PyTorch before 2.6 always writes them
        return
    try:
        path.write_bytes(damage.saved(state))
    finally:
        torch.serialization.set_crc32_options(True)
    assert outcome_of(by_function, path, state, damaged=False) == 'loaded'


@pytest.fixture(scope='module')
def classifier(tmp_path_factory):
    """A small classifier's config, its weights, and a runner that could test it."""
    cfg = Config(CLASSIFIER)
    path = tmp_path_factory.mktemp('classifier') / 'whole.pth'
    from mmengine.registry import MODELS, DefaultScope

    from mmdla.engine.config import register_host_modules

    register_host_modules(cfg)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        torch.manual_seed(5)
        model = MODELS.build(cfg.model)
        runner = Runner(
            MODELS.build(cfg.model), work_dir=str(path.parent), default_scope='mmpretrain'
        )
    torch.save(
        dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(classes=['a']))), path
    )
    return cfg, path, runner


def damaged_classifiers(whole: bytes, state):
    for i in range(ROUNDS):
        rng = random.Random(i)
        if i % 2:
            yield rng.choice(damage.BYTES)(whole, rng)
        else:
            yield damage.saved(dict(state_dict=rng.choice(damage.REFUSED)(dict(state), rng)))


def test_the_tools_refuse_what_is_damaged(classifier, tool, tmp_path, capsys):
    """``load_model`` (predict, export) and what ``tools/test.py`` loads with."""
    cfg, whole, runner = classifier
    state = torch.load(whole, weights_only=True)['state_dict']
    load_checkpoint = tool('test').__globals__['load_checkpoint']
    loaders = [
        lambda path: load_model(cfg, str(path)).state_dict(),
        lambda path: load_checkpoint(runner, runner.load_checkpoint, str(path))['state_dict'],
    ]
    path = tmp_path / 'damaged ü.pth'
    for i, data in enumerate([whole.read_bytes(), *damaged_classifiers(whole.read_bytes(), state)]):
        path.write_bytes(data)
        for load in loaders:
            try:
                assert same(state, load(path))
                outcome = 'loaded rightly'
            except (InputError, CheckpointError) as error:
                assert str(path) in str(error)
                outcome = 'refused'
            assert (outcome == 'loaded rightly') >= (i == 0)
        tally('damaged checkpoints', outcome, ('tools', i))


def test_convert_refuses_what_is_damaged(tool, tmp_path, monkeypatch):
    """``tools/convert_checkpoint.py`` leaves no file behind, nor the start of one."""
    from golden_models import Fixture

    convert = tool('convert_checkpoint')
    state = Fixture('cifar_dla_l_20').released
    whole = damage.saved(state)
    source, target = tmp_path / 'damaged ü.pth', tmp_path / 'out/ours.pth'
    target.parent.mkdir()
    for i in range(ROUNDS):
        rng = random.Random(i)
        if i % 2:
            data = rng.choice(damage.BYTES)(whole, rng)
        else:
            data = damage.saved(rng.choice([*damage.REFUSED])(dict(state), rng))
        source.write_bytes(data)
        try:
            convert([str(source), str(target)])
            outcome = 'loaded rightly'
            target.unlink()
        except CheckpointError as error:
            assert str(source) in str(error)
            outcome = 'refused'
        assert not list(target.parent.iterdir())
        tally('damaged checkpoints', outcome, ('convert', i))
    source.unlink()
    with pytest.raises(CheckpointError, match='no such checkpoint'):
        convert([str(source), str(target)])
