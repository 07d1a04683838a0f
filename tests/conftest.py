import atexit
import gc
import os
import shutil
import sys
import tempfile
from pathlib import Path

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
from hypothesis import HealthCheck, Phase, settings
from left_out import left_out_here, reason_for
from mmengine.config import config as mmengine_config
from mmengine.config import utils as config_utils
from mmengine.registry import DefaultScope
from mmengine.runner import runner as mmengine_runner
from small_runs import (  # noqa: F401
    checkpoint,
    cli,
    own_coco,
    small_config,
    small_run,
    two_stage,
)
from yapf.yapflib import yapf_api

# Property tests: the same few cases in every run of the suite, many random ones by
# `pytest tests/reliability --hypothesis-profile=long`.
QUIET = dict(deadline=None, database=None, suppress_health_check=list(HealthCheck))
WITHOUT_SHRINKING = (Phase.explicit, Phase.generate)  # which may take minutes
settings.register_profile(
    'suite', max_examples=25, derandomize=True, phases=WITHOUT_SHRINKING, **QUIET
)
settings.register_profile('long', max_examples=500, **QUIET)
settings.load_profile('suite')

GUARD = str(Path(__file__).parent / 'no_network')
sys.path.insert(0, GUARD)
if GUARD not in os.environ.get('PYTHONPATH', ''):
    os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, [GUARD, os.environ.get('PYTHONPATH')]))

import network_guard  # noqa: E402

network_guard.forbid()
NETWORK_RECORD = Path(tempfile.mkdtemp(prefix='mmdla-tests-'), 'network')
os.environ[network_guard.RECORD] = str(NETWORK_RECORD)
atexit.register(shutil.rmtree, NETWORK_RECORD.parent, ignore_errors=True)
if not torch.cuda.is_available():
    os.environ['TRITON_INTERPRET'] = '1'  # read when Triton is imported
if 'PYTEST_XDIST_WORKER' in os.environ:  # one core for each, subprocesses included
    os.environ['OMP_NUM_THREADS'] = '1'
    torch.set_num_threads(1)
else:
    torch.set_num_threads(min(2, torch.get_num_threads()))


def remembering(function):
    """A pure function that computes each result once; its options may be dictionaries."""
    results = {}

    def call(*args, **kwargs):
        key = str((args, kwargs))
        if key not in results:
            results[key] = function(*args, **kwargs)
        return results[key]

    return call


# every training reads the index of mmdet's models, asks the compilers for their versions and lays
# out its config four times, which is the text of the config unformatted too
mmengine_config._get_external_cfg_path = remembering(mmengine_config._get_external_cfg_path)
config_utils.load = remembering(config_utils.load)
mmengine_runner.collect_env = remembering(mmengine_runner.collect_env)
mmengine_config.FormatCode = yapf_api.FormatCode = lambda text, **style: (text, True)


def pytest_collection_finish():
    """Data sets of MMEngine collect garbage: no need to look through what was imported each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_default_scope():
    """Runners leave their default scope behind, which our defaults follow."""
    DefaultScope._instance_dict.clear()


@pytest.fixture(autouse=True)
def no_network():
    """A test fails that tried to use the network, also in a process that it started."""
    yield
    tried = NETWORK_RECORD.read_text() if NETWORK_RECORD.exists() else ''
    NETWORK_RECORD.unlink(missing_ok=True)
    assert not tried, f'the test, or a process that it started, tried to use the network:\n{tried}'


# files of few long tests, with which two processes begin so that they end together
LONG = (
    'tests/integration',
    'tests/tools/test_reproduce.py',
    'tests/dev',
    'tests/cli/test_export.py',
)


def pytest_collection_modifyitems(config, items):
    """Leave out what ``left_out.py`` names, and nothing else; what takes long comes first."""
    left_out = [item for item in items if reason_for(item.nodeid)]
    if left_out:
        items[:] = [item for item in items if not reason_for(item.nodeid)]
        config.hook.pytest_deselected(items=left_out)
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))


def pytest_terminal_summary(terminalreporter):
    """Say what was left out; the process that runs this may not have collected (xdist)."""
    for tests, reason in left_out_here():
        terminalreporter.write_line(f'left out: {reason}')
        for test in tests:
            terminalreporter.write_line(f'  {test}')
