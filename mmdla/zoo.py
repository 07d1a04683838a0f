"""The shipped models by name."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from mmengine.fileio import dump, load

MIM = Path(__file__).parent / '.mim'  # configs and model index, made by the installation
CLASSIFICATION = 'Image Classification'
DETECTION = {'Object Detection', 'Instance Segmentation'}  # in MMDetection


def register_models() -> None:
    """Make the shipped models known by name to the host libraries that are installed.

    The classifiers to ``mmpretrain.get_model`` and ``list_models``, the detectors to
    ``mmdet.apis.DetInferencer`` and its ``list_models``. Calling it again changes nothing.

    Raises:
        ImportError: Neither MMPretrain nor MMDetection is installed.
        FileNotFoundError: mmdla was not installed by pip, so that there is no model index.
    """
    metafile = MIM / 'configs/metafile.yml'
    if not metafile.is_file():
        raise FileNotFoundError(f'{metafile} is not there: install mmdla with pip install -e .')
    content = load(metafile)
    classifiers, detectors = [], []
    for model in content['Models']:
        tasks = {result['Task'] for result in model['Results']}
        if tasks == {CLASSIFICATION}:
            classifiers.append(model)
        elif tasks <= DETECTION:
            detectors.append(model)
    errors = []
    for register, models in ((_to_mmpretrain, classifiers), (_to_mmdet, detectors)):
        try:
            register(dict(content, Models=models))
        except ImportError as error:
            errors.append(error)
    if len(errors) == 2:
        raise errors[0]


def _to_mmpretrain(content: dict) -> None:
    from mmpretrain.apis import ModelHub

    if ModelHub.has(content['Models'][0]['Name']):
        return
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder, 'model-index.yml')
        dump(content, index)
        ModelHub.register_model_index(index, config_prefix=MIM)


def _to_mmdet(content: dict) -> None:
    import mmdet  # noqa: F401 - whether it is installed
    from mmengine.infer.infer import BaseInferencer

    of_host = BaseInferencer._get_models_from_metafile
    if hasattr(of_host, 'mmdla'):
        return
    home = BaseInferencer._get_repo_or_mim_dir('mmdet')
    # without weights MMEngine's inferencer warns; an absolute path is not joined to its folder
    ours = [{'Weights': None, **m, 'Config': str(MIM / m['Config'])} for m in content['Models']]

    def with_ours(dir: str) -> Iterator[dict]:
        yield from of_host(dir)
        if dir == home:
            yield from ours

    with_ours.mmdla = True
    BaseInferencer._get_models_from_metafile = staticmethod(with_ours)
