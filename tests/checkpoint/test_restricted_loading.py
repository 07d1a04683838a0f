"""``restricted_loading`` guards everything that is read within it, and puts back what was there."""

import functools
import http.server
import os
import threading
from contextlib import ExitStack

import pytest
import torch
from mmengine.runner import load_checkpoint
from torch import nn
from toy_training import ToyModel, toy_runner

from mmdla import DLAResNet
from mmdla.checkpoint import CheckpointError
from mmdla.checkpoint.restricted import restricted_loading, torch_load

LIGHT = dict(type='DLALight', reduction=4, head_channels=8)
SMALL = dict(depth=18, base_channels=8, stem_channels=8)


class Command:
    """Makes a folder when it is unpickled."""

    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return os.mkdir, (self.target,)


def hostile(path, target, **content):
    torch.save(
        dict(state_dict=nn.Linear(2, 2).state_dict(), extra=Command(target), **content), path
    )
    return str(path)


@pytest.fixture
def attack(tmp_path):
    return hostile(tmp_path / 'hostile.pth', tmp_path / 'executed')


@pytest.fixture(autouse=True)
def nothing_left_behind(tmp_path):
    before = torch.load
    yield
    assert torch.load is before
    assert not (tmp_path / 'executed').exists()


def mmengine_reads(path):
    load_checkpoint(nn.Linear(2, 2), path, map_location='cpu')


def test_hostile_file_is_hostile(tmp_path, attack):
    torch_load(attack, weights_only=False)
    (tmp_path / 'executed').rmdir()  # what else the tests here compare with


def test_nested_with_an_exception(attack):
    with restricted_loading():
        with pytest.raises(KeyError), restricted_loading():
            raise KeyError
        mmengine_reads(attack)
        with restricted_loading():
            mmengine_reads(attack)
        mmengine_reads(attack)


def test_what_was_there_is_put_back(monkeypatch, attack):
    theirs = functools.partial(torch_load)
    monkeypatch.setattr(torch, 'load', theirs)
    with restricted_loading():
        mmengine_reads(attack)
        other = functools.partial(torch_load)
        torch.load = other  # by somebody within, who puts it back
        with restricted_loading():
            mmengine_reads(attack)
        assert torch.load is other
        torch.load = theirs
        with restricted_loading():
            mmengine_reads(attack)
        assert torch.load is theirs
    assert torch.load is theirs


def test_left_in_the_order_of_entry(attack):
    first, second = ExitStack(), ExitStack()
    first.enter_context(restricted_loading())
    second.enter_context(restricted_loading())
    first.close()
    mmengine_reads(attack)
    second.close()


def test_threads(attack):
    barrier, errors = threading.Barrier(4), []

    def work(number):
        try:
            for _ in range(10):
                barrier.wait(20)
                with restricted_loading():
                    if number % 2:
                        barrier_free.wait(0.001 * number)
                    mmengine_reads(attack)
        except Exception as error:
            errors.append(error)

    barrier_free = threading.Event()
    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors


def test_open_files_are_read_in_the_same_way(tmp_path, attack):
    script = tmp_path / 'script.pt'
    torch.jit.script(nn.Linear(2, 2)).save(str(script))
    with restricted_loading():
        with open(attack, 'rb') as file:
            assert set(torch.load(file)) == {'state_dict', 'extra'}
        with open(script, 'rb') as file, pytest.raises(CheckpointError, match='TorchScript'):
            torch.load(file)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Address of a web server of a folder, and the folder."""
    folder = tmp_path / 'served'
    folder.mkdir()
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    for name in ('http_proxy', 'HTTP_PROXY', 'all_proxy', 'ALL_PROXY'):
        monkeypatch.delenv(name, raising=False)
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f'http://127.0.0.1:{server.server_port}', folder
        server.shutdown()
        thread.join()


def test_backbone_from_an_address_then_a_hostile_file(tmp_path, server, attack):
    address, folder = server
    source = DLAResNet(**SMALL, layer_attention=None)
    torch.save(dict(state_dict=source.state_dict(), extra=Command(tmp_path / 'executed')),
               folder / 'resnet.pth')  # fmt: skip
    cfg = dict(init_cfg=dict(type='Pretrained', checkpoint=f'{address}/resnet.pth'))
    with restricted_loading():  # as tools/train.py trains
        model = DLAResNet(**SMALL, layer_attention=LIGHT, **cfg)
        model.init_weights()
        assert torch.equal(model.conv1.weight, source.conv1.weight)
        mmengine_reads(attack)  # load_from
        mmengine_reads(hostile(folder / 'more.pth', tmp_path / 'executed'))
        mmengine_reads(f'{address}/more.pth')


class WithBackbone(ToyModel):
    def __init__(self, address):
        super().__init__()
        init_cfg = dict(type='Pretrained', checkpoint=address)
        self.backbone = DLAResNet(**SMALL, layer_attention=LIGHT, init_cfg=init_cfg)


@pytest.mark.parametrize('resume', [False, True])
def test_a_run_that_initializes_from_an_address(tmp_path, server, resume):
    """The weights come from an address, what is loaded next from a hostile file."""
    address, folder = server
    source = DLAResNet(**SMALL, layer_attention=None)
    torch.save(source.state_dict(), folder / 'resnet.pth')
    model = WithBackbone(f'{address}/resnet.pth')
    path = hostile(
        tmp_path / 'epoch_1.pth',
        tmp_path / 'executed',
        meta=dict(epoch=1, iter=4),
        message_hub={},
    )
    runner = toy_runner(tmp_path, model=model, epochs=1, load_from=path, resume=resume)
    with restricted_loading():
        if resume:
            with pytest.raises(CheckpointError, match='more than plain data'):
                runner.train()
        else:
            runner.train()
    assert not (tmp_path / 'executed').exists()
