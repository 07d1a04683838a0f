"""Reading checkpoints safely, translating their names, and loading them with a report."""

from .errors import CheckpointError
from .load import LoadReport, load_backbone
from .read import read_checkpoint, read_state_dict
from .recognise import Release, convert_checkpoint
from .released import convert_released
from .resume import load_training_state
from .whole import find_damage, newest_whole

__all__ = [
    'CheckpointError',
    'LoadReport',
    'Release',
    'convert_checkpoint',
    'convert_released',
    'find_damage',
    'load_backbone',
    'load_training_state',
    'newest_whole',
    'read_checkpoint',
    'read_state_dict',
]
