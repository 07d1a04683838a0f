"""Reading checkpoints safely, translating their names, and loading them with a report."""

from .errors import CheckpointError
from .integrity import latest_valid_checkpoint, verify_checkpoint
from .load import LoadReport, load_backbone
from .read import read_checkpoint, read_state_dict
from .recognise import Release, convert_checkpoint
from .released import convert_released
from .resume import load_training_state

# their names before, for code that has them
find_damage, newest_whole = verify_checkpoint, latest_valid_checkpoint

__all__ = [
    'CheckpointError',
    'LoadReport',
    'Release',
    'convert_checkpoint',
    'convert_released',
    'latest_valid_checkpoint',
    'load_backbone',
    'load_training_state',
    'read_checkpoint',
    'read_state_dict',
    'verify_checkpoint',
]
