import os

import pytest
import torch
from fixtures import (  # noqa: F401
    repo,
    resnet_checkpoint,
    run_process,
    tiny_cifar,
    tiny_coco,
    tiny_imagenet,
    tool,
)
from hypothesis import HealthCheck, settings
from mmengine.registry import DefaultScope

# Property tests: the same few cases in every run of the suite, many random ones by
# `pytest tests/reliability --hypothesis-profile=long`.
QUIET = dict(deadline=None, database=None, suppress_health_check=list(HealthCheck))
settings.register_profile('suite', max_examples=25, derandomize=True, **QUIET)
settings.register_profile('long', max_examples=500, **QUIET)
settings.load_profile('suite')

if not torch.cuda.is_available():
    os.environ['TRITON_INTERPRET'] = '1'  # read when Triton is imported
if 'PYTEST_XDIST_WORKER' in os.environ:  # one core for each, subprocesses included
    os.environ['OMP_NUM_THREADS'] = '1'
    torch.set_num_threads(1)
else:
    torch.set_num_threads(min(2, torch.get_num_threads()))


@pytest.fixture(autouse=True)
def no_default_scope():
    """Runners leave their default scope behind, which our defaults follow."""
    DefaultScope._instance_dict.clear()
