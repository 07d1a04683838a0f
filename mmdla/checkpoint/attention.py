"""Whether a state dict has the layer attention that a model is to load from it."""

from torch import Tensor, nn

from .check import listed
from .errors import CheckpointError


def check_attention(attention: nn.Module, state: dict[str, Tensor], prefix: str) -> None:
    """Refuse a state dict that has another attention than this one, or a part of it.

    ``load_state_dict(strict=False)``, and MMEngine's ``load_checkpoint``, would leave out what
    does not fit, and the model would compute something else than the one that was saved.
    A state dict without any attention, a ResNet's, passes.

    Args:
        attention (LayerAttention): The attention of a stage.
        state (dict[str, Tensor]): The state dict that is being loaded.
        prefix (str): Where the attention's names begin, ``'backbone.layer1.attention.'``.

    Raises:
        CheckpointError: The names or shapes under the prefix are not those of the attention.
    """
    given = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    if not given:
        return
    translated = tuple(  # by themselves when they are loaded, as weight norm does with old names
        f'{name}.' for name, m in attention.named_modules() if name and m._load_state_dict_pre_hooks
    )
    optional, spare = attention.optional_parameters(), attention.spare_parameters()

    def counts(name: str) -> bool:
        counter = name.endswith('num_batches_tracked')
        return not (counter or name in optional or name.startswith((*translated, *spare)))

    own = attention.state_dict()
    problems = listed(
        {
            'not in the model': [n for n in given if n not in own and counts(n)],
            'not in the checkpoint': [n for n in own if n not in given and counts(n)],
            'other shapes': [
                f'{n} {tuple(v.shape)} (model: {tuple(own[n].shape)})'
                for n, v in given.items()
                if n in own and counts(n) and v.shape != own[n].shape
            ],
        }
    )
    if problems:
        raise CheckpointError(
            f'{prefix[:-1]} ({type(attention).__name__}): the checkpoint has another attention, or '
            'a part of one; are the arguments of layer_attention those that it was trained with?'
            '\n  ' + '\n  '.join(problems)
        )
