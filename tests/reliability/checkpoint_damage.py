"""Checkpoint files of every kind, right ones and damaged ones."""

import io
import os
import pickle
import random
import struct
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import torch

State = dict[str, torch.Tensor]


def saved(content, legacy: bool = False) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


class Evil:
    """Unpickled by the book it calls a function of the standard library, which writes a file."""

    def __init__(self, call: tuple) -> None:
        self.call = call

    def __reduce__(self):
        return self.call


def evil_calls(target: Path) -> list[tuple]:
    touch = f'import pathlib; pathlib.Path({str(target)!r}).touch()'
    return [
        (open, (str(target), 'w')),
        (exec, (touch,)),
        (eval, (f'open({str(target)!r}, "w")',)),
        (os.system, (f'touch {target}',)),
        (os.popen, (f'touch {target}; sleep 0.1',)),
        (Path.touch, (target,)),
        (torch.save, (torch.zeros(1), str(target))),
    ]


# What is done to the contents; ``None`` where the file must load as if nothing had been done.
def drop(state: State, rng: random.Random) -> State:
    name = rng.choice([n for n in state if not n.endswith('num_batches_tracked')])
    return {n: v for n, v in state.items() if n != name}


def rename(state: State, rng: random.Random) -> State:
    name = rng.choice([n for n in state if not n.endswith('num_batches_tracked')])
    return {(f'{n}x' if n == name else n): v for n, v in state.items()}


def add(state: State, rng: random.Random) -> State:
    name = rng.choice(['layer1.0.conv9.weight', 'layer1.attention.more', 'bn9.weight', ''])
    return state | {name: torch.ones(2)}


def replaced(state: State, rng: random.Random, make: Callable) -> State:
    name = rng.choice([n for n, v in state.items() if v.is_floating_point()])
    return state | {name: make(state[name])}


def reshape(state: State, rng: random.Random) -> State:
    shapes = [lambda v: v[None], lambda v: v.flatten()[:-1], lambda v: v.new_zeros(0),
              lambda v: torch.cat((v, v)), lambda v: v.sum()]  # fmt: skip
    return replaced(state, rng, rng.choice(shapes))


def recast(state: State, rng: random.Random) -> State:
    kinds = [torch.int64, torch.bool, torch.complex64, torch.uint8]
    return replaced(state, rng, lambda v: v.to(rng.choice(kinds)))


def poison(state: State, rng: random.Random) -> State:
    def put(v):
        v = v.clone()
        v.view(-1)[rng.randrange(v.numel())] = rng.choice([torch.nan, torch.inf, -torch.inf])
        return v

    return replaced(state, rng, put)


def no_tensor(state: State, rng: random.Random) -> State:
    values = ['text', None, 3, [1.0], {'a': 1}, b'bytes', 1.5, object, torch.float32]
    return replaced(state, rng, lambda v: rng.choice(values))


def odd_tensor(state: State, rng: random.Random) -> State:
    kinds = [lambda v: v.to_sparse(), lambda v: v.to('meta'),
             lambda v: torch.quantize_per_tensor(v.float(), 0.1, 0, torch.qint8)]  # fmt: skip
    return replaced(state, rng, rng.choice(kinds))


def odd_key(state: State, rng: random.Random) -> State:
    return state | {rng.choice([1, None, (1, 2), b'bytes', 1.5]): torch.ones(2)}


def not_a_dict(state: State, rng: random.Random):
    return rng.choice([list(state.values()), tuple(state), 'text', None, 3, {}, {'epoch': 3},
                       {'state_dict': {}}, {'state_dict': None}, {'model': [1]}, torch.ones(3),
                       {'state_dict': list(state.values())}])  # fmt: skip


def two_names_for_one(state: State, rng: random.Random) -> State:
    return {f'module.{n}': v for n, v in state.items()} | {'conv1.weight': torch.ones(1)}


REFUSED = [drop, rename, add, reshape, recast, poison, no_tensor, odd_tensor, odd_key, not_a_dict,
           two_names_for_one]  # fmt: skip


def wrap(state: State, rng: random.Random):
    content = state
    for _ in range(rng.randint(1, 4)):
        content = {rng.choice(['state_dict', 'model', 'model_state_dict', 'net']): content}
    return content | rng.choice([{}, {'meta': {'epoch': 3}}, {'meta': None}, {'optimizer': {}}])


def prefix(state: State, rng: random.Random):
    text = rng.choice(['module.', 'module.module.', 'backbone.', 'module.backbone.'])
    return {text + n: v for n, v in state.items()}


def recase(state: State, rng: random.Random):
    kind = rng.choice([OrderedDict, dict])
    return kind(
        (n, torch.nn.Parameter(v) if v.is_floating_point() else v) for n, v in state.items()
    )


def double(state: State, rng: random.Random):
    return {n: v.double() if v.is_floating_point() else v for n, v in state.items()}


ACCEPTED = [wrap, prefix, recase, double]


# What is done to the bytes.
def truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 20])):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def blank(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    length = rng.choice([1, 16, 512, 4096])
    return data[:start] + bytes(len(data[start : start + length])) + data[start + length :]


def insert(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + rng.randbytes(rng.choice([1, 3, 64])) + data[start:]


def swap(data: bytes, rng: random.Random) -> bytes:
    a, b, n = rng.randrange(len(data) - 64), rng.randrange(len(data) - 64), 64
    changed = bytearray(data)
    changed[a : a + n], changed[b : b + n] = data[b : b + n], data[a : a + n]
    return bytes(changed)


BYTES = [truncate, flip, flip, flip, blank, insert, swap]


def other_files(state: State) -> dict[str, bytes]:
    """Whole files that are no checkpoints."""
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    script = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), script)
    return {
        'empty': b'',
        'one byte': b'P',
        'zip magic': b'PK\x03\x04',
        'empty zip': b'PK\x05\x06' + bytes(18),
        'safetensors': struct.pack('<Q', len(header)) + header + bytes(4),
        'TorchScript': script.getvalue(),
        'PNG': b'\x89PNG\r\n\x1a\n' + bytes(100),
        'text': b'weights: 3\n' * 9,
        'pickle of a dict': pickle.dumps({'a': 1}),
        'random': random.Random(0).randbytes(5000),
        'zeros': bytes(5000),
    }
