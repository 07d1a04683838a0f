"""The shipped models by name."""

from pathlib import Path

MIM = Path(__file__).parent / '.mim'  # configs and model index, made by the installation


def register_models() -> None:
    """Make the shipped classifiers known to ``mmpretrain.get_model`` and ``list_models``.

    Calling it again changes nothing.

    Raises:
        ImportError: MMPretrain is not installed.
        FileNotFoundError: mmdla was not installed by pip, so that there is no model index.
    """
    from mmpretrain.apis import ModelHub

    index = MIM / 'model-index.yml'
    if not index.is_file():
        raise FileNotFoundError(f'{index} is not there: install mmdla with pip install -e .')
    if not ModelHub.has('imagenet_dla_l_r50'):
        ModelHub.register_model_index(index, config_prefix=MIM)
