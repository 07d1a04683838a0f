"""Look inside: what the layer attention of a model does on given images or during training."""

from .hook import LayerAttentionHook
from .recording import Recording, record
from .records import StageRecord

__all__ = ['LayerAttentionHook', 'Recording', 'StageRecord', 'record']
