"""Loading the whole state of a training run without executing anything that is in the file."""

import os
from typing import Any

from mmengine.runner import CheckpointLoader

from .errors import CheckpointError
from .inert import load_file, to_device
from .whole import find_damage

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
    if damage := find_damage(path):
        raise CheckpointError(f'{path}: {damage}')
    checkpoint = load_file(path, whole=True)
    missing = [p for p in PARTS if not isinstance(checkpoint, dict) or p not in checkpoint]
    if missing or not {'epoch', 'iter'} <= set(checkpoint['meta']):
        raise CheckpointError(
            f'{path}: no training can go on from it, it has no {", ".join(missing or ["epoch"])}'
            ' (to start a new training from its weights: load_from)'
        )
    return to_device(checkpoint, map_location)
