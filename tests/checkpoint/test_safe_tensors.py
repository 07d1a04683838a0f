"""Files of safetensors load everywhere where those of PyTorch do, and are never unpickled."""

import json
import struct
import sys
import types

import pytest
import torch
from mmengine.runner import load_checkpoint

from mmdla import DLAResNet
from mmdla.checkpoint import CheckpointError, read_state_dict
from mmdla.checkpoint.restricted import restricted_loading

SMALL = dict(depth=18, base_channels=8, stem_channels=8, layer_attention=None)
DTYPES = dict(F32=torch.float32, I64=torch.int64)


def write(path, state):
    """The format by hand: the length of a JSON header, the header, the numbers."""
    names, header, numbers = {v: k for k, v in DTYPES.items()}, {}, b''
    for name, value in state.items():
        raw = value.contiguous().numpy().tobytes()
        header[name] = dict(
            dtype=names[value.dtype],
            shape=list(value.shape),
            data_offsets=[len(numbers), len(numbers) + len(raw)],
        )
        numbers += raw
    text = json.dumps(dict(header, __metadata__=dict(format='pt'))).encode()
    path.write_bytes(struct.pack('<Q', len(text)) + text + numbers)
    return str(path)


def load(data):
    length = int.from_bytes(data[:8], 'little')
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    tensors = {}
    for name, entry in header.items():
        if name != '__metadata__':
            start, end = entry['data_offsets']
            if end > len(body):
                raise ValueError('incomplete')
            flat = torch.frombuffer(bytearray(body[start:end]), dtype=DTYPES[entry['dtype']])
            tensors[name] = flat.reshape(entry['shape']).clone()
    return tensors


def load_file(path):
    with open(path, 'rb') as file:
        return load(file.read())


@pytest.fixture
def package(monkeypatch):
    """What of the package is called, whether it is installed or not."""
    reader = types.ModuleType('safetensors.torch')
    reader.load, reader.load_file = load, load_file
    package = types.ModuleType('safetensors')
    package.torch = reader
    monkeypatch.setitem(sys.modules, 'safetensors', package)
    monkeypatch.setitem(sys.modules, 'safetensors.torch', reader)


@pytest.fixture
def source():
    return DLAResNet(**SMALL).state_dict()


@pytest.fixture
def path(tmp_path, source):
    return write(tmp_path / 'resnet.safetensors', source)


def same(model, source):
    return all(torch.equal(v, source[k]) for k, v in model.state_dict().items())


@pytest.mark.usefixtures('package')
def test_read_by_every_way(path, source):
    assert read_state_dict(path).keys() == source.keys()
    model = DLAResNet(**SMALL, init_cfg=dict(type='Pretrained', checkpoint=path))
    model.init_weights()
    assert same(model, source)
    model = DLAResNet(**SMALL)
    with restricted_loading():  # as the tools read load_from
        load_checkpoint(model, path, map_location='cpu')
        assert same(model, source)
        with open(path, 'rb') as file:
            assert torch.load(file).keys() == source.keys()


@pytest.mark.usefixtures('package')
def test_damaged(path):
    with open(path, 'r+b') as file:
        file.truncate(5000)
    with pytest.raises(CheckpointError, match='damaged, or no safetensors file'):
        read_state_dict(path)


def test_not_installed(path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'safetensors', None)
    with pytest.raises(CheckpointError, match=r'resnet\.safetensors: .*pip install safetensors'):
        read_state_dict(path)
    with restricted_loading(), pytest.raises(CheckpointError, match='pip install safetensors'):
        load_checkpoint(DLAResNet(**SMALL), path)
