"""Say what to do about weights at an address that cannot be reached."""

import os
from urllib.parse import urlparse

import torch
from mmengine.runner.checkpoint import get_external_models, get_torchvision_models

SCHEMES = {
    'torchvision': get_torchvision_models,
    'modelzoo': get_torchvision_models,
    'open-mmlab': get_external_models,
    'openmmlab': get_external_models,
}


def ways_out(path: str) -> str:
    """Say where a file can be put that cannot be fetched, and how to do without it.

    Args:
        path (str): The address, e.g. ``'torchvision://resnet50'``.
    """
    scheme, _, name = path.partition('://')
    url = SCHEMES[scheme]().get(name) if scheme in SCHEMES else path
    put = ''
    if url and url.startswith(('http://', 'https://')):
        folder = os.path.join(torch.hub.get_dir(), 'checkpoints')
        put = f'put {url} into {folder} under the name {os.path.basename(urlparse(url).path)}, '
    return (
        f'Without a network: {put}name a file that is here '
        '(model.backbone.init_cfg.checkpoint=FILE), or start from random weights '
        '(model.backbone.init_cfg=None, then also frozen_stages=0 and norm_eval=False)'
    )
