"""Load the complete state of a training run without executing anything that is in the file."""

import os
from typing import Any

from mmengine.runner import CheckpointLoader
from torch import Tensor

from .check import listed
from .errors import CheckpointError
from .integrity import verify_checkpoint
from .restricted import load_file, to_device, without_program

SCHEME = 'training_state://'
PARTS = ('meta', 'state_dict', 'message_hub')  # what Runner.resume cannot do without


@CheckpointLoader.register_scheme(prefixes=SCHEME)
def load_training_state(path: str, map_location: Any = None) -> dict:
    """Load a local checkpoint to resume from; ``path`` may begin with ``training_state://``.

    MMEngine unpickles such files, or, since PyTorch 2.6, tries ``weights_only=True`` with a list
    of allowed names that has ``getattr`` in it, and on failure unpickles nevertheless. Here only
    tensors, NumPy arrays, plain containers and the history of MMEngine's log are accepted.

    Args:
        path (str): Address of the file.
        map_location (str): As in :func:`torch.load`.

    Returns:
        dict: The checkpoint.

    Raises:
        CheckpointError: The file is damaged, holds other objects, or no training state.
    """
    path = os.path.expanduser(path.removeprefix(SCHEME))
    try:
        checkpoint = load_file(path, plain_only=True)
    except CheckpointError as error:
        if damage := verify_checkpoint(path):  # which says it in other words
            raise CheckpointError(f'{path}: {damage}') from error
        raise
    missing = [p for p in PARTS if not isinstance(checkpoint, dict) or p not in checkpoint]
    if missing or not {'epoch', 'iter'} <= set(checkpoint['meta']):
        raise CheckpointError(
            f'{path}: no training can go on from it, it has no {", ".join(missing or ["epoch"])}'
            ' (to start a new training from its weights: load_from)'
        )
    return to_device(without_program(checkpoint), map_location)


def check_same_model(state: dict[str, Tensor], own: dict[str, Tensor]) -> None:
    """Refuse to resume a run of another model.

    MMEngine would load what fits, and train on with the rest as it was initialized.

    Args:
        state (dict[str, Tensor]): The model's state in the checkpoint.
        own (dict[str, Tensor]): State dict of the model that is to be trained on.

    Raises:
        CheckpointError: Names or shapes differ.
    """
    state, own = ({k: v for k, v in d.items() if not _is_counter(k)} for d in (state, own))
    problems = listed(
        {
            'not in the model': [name for name in state if name not in own],
            'not in the checkpoint': [name for name in own if name not in state],
            'other shapes': [
                f'{name} {tuple(v.shape)} (model: {tuple(own[name].shape)})'
                for name, v in state.items()
                if name in own and v.shape != own[name].shape
            ],
        }
    )
    if problems:
        raise CheckpointError(
            'the checkpoint to resume from is of another model than that of the config (to start '
            'a new training from its weights: load_from; for a new run: another work folder)\n  '
            + '\n  '.join(problems)
        )


def _is_counter(name: str) -> bool:
    return name.endswith('num_batches_tracked')
