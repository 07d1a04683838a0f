"""The state of a training is loaded whole, and nothing in its file is executed."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from mmdla.checkpoint import CheckpointError
from mmdla.checkpoint.resume import SCHEME, load_training_state


def training_state(**more) -> dict:
    """What a runner writes: tensors, NumPy numbers, the history of the log."""
    history = HistoryBuffer([0.5, 0.25], [1, 1])
    return dict(
        meta=dict(epoch=3, iter=12, seed=1, dataset_meta=dict(palette=np.arange(6).reshape(2, 3))),
        state_dict=dict(w=torch.randn(3)),
        message_hub=dict(
            log_scalars=dict(loss=history),
            runtime_info=dict(best_score=np.float64(0.5), n=np.int64(3), flag=np.bool_(True)),
            resumed_keys=dict(loss=True),
        ),
        optimizer=dict(
            state={0: dict(step=torch.tensor(3.0))},
            param_groups=[dict(lr=0.1, kind=torch.bfloat16)],
        ),
        **more,
    )


def test_everything_comes_back(tmp_path):
    state, path = training_state(), tmp_path / 'epoch_3.pth'
    torch.save(state, path)
    loaded = load_training_state(f'{SCHEME}{path}')
    assert torch.equal(loaded['state_dict']['w'], state['state_dict']['w'])
    assert loaded['optimizer'] == state['optimizer']
    assert loaded['message_hub']['runtime_info'] == state['message_hub']['runtime_info']
    history = loaded['message_hub']['log_scalars']['loss']
    assert history.statistics('mean') == 0.375
    assert (loaded['meta']['dataset_meta']['palette'] == np.arange(6).reshape(2, 3)).all()


class Execute:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    'attack',
    [
        lambda target: Execute(os.mkdir, target),
        lambda target: Execute(eval, f'__import__("os").mkdir({target!r})'),
        # through what MMEngine's own list of allowed names lets in
        lambda target: Execute(getattr, HistoryBuffer, '__init__'),
        lambda target: Execute(getattr, Execute(getattr, HistoryBuffer, 'min'), '__globals__'),
        lambda target: Path(target),
    ],
)
def test_nothing_is_executed(tmp_path, attack):
    path, target = tmp_path / 'epoch_3.pth', tmp_path / 'executed'
    torch.save(training_state(extra=attack(str(target))), path)
    with pytest.raises(CheckpointError, match='more than plain data'):
        load_training_state(f'{SCHEME}{path}')
    assert not target.exists()


def test_what_is_no_training_state(tmp_path):
    path = tmp_path / 'weights.pth'
    torch.save(dict(state_dict=dict(w=torch.ones(1)), meta={}), path)
    with pytest.raises(CheckpointError, match='it has no message_hub'):
        load_training_state(f'{SCHEME}{path}')
    torch.save(torch.ones(1), path)
    with pytest.raises(CheckpointError, match='it has no meta'):
        load_training_state(f'{SCHEME}{path}')
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match='cut off'):
        load_training_state(f'{SCHEME}{path}')
