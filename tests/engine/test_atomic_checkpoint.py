"""Checkpoints survive full disks and kills, and resuming finds the newest whole one."""

import resource
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from toy_training import toy_runner

from mmdla.checkpoint import CheckpointError
from mmdla.checkpoint.resume import load_training_state
from mmdla.engine.atomic_checkpoint import AtomicLocalBackend
from mmdla.errors import TrainingError


def checkpoints(folder) -> list[str]:
    return sorted(path.name for path in Path(folder).glob('*.pth'))


def epochs_run(hook_runner) -> list[int]:
    """The epochs that a runner goes through from now on."""
    epochs = []

    class Note(Hook):
        def before_train_epoch(self, runner):
            epochs.append(runner.epoch + 1)

    hook_runner.register_hook(Note())
    hook_runner.train()
    return epochs


@pytest.mark.parametrize('options', [dict(), dict(max_keep_ckpts=1), dict(max_keep_ckpts=2)])
def test_the_same_files_as_mmengine(tmp_path, options):
    for kind in ('CheckpointHook', 'AtomicCheckpointHook'):
        toy_runner(tmp_path / kind, dict(type=kind, **options)).train()
    names = checkpoints(tmp_path / 'CheckpointHook')
    assert checkpoints(tmp_path / 'AtomicCheckpointHook') == names
    last = (tmp_path / 'AtomicCheckpointHook/last_checkpoint').read_text()
    assert last == str(tmp_path / 'AtomicCheckpointHook/epoch_3.pth')
    for name in names:
        theirs = load_training_state(str(tmp_path / 'CheckpointHook' / name))
        ours = load_training_state(str(tmp_path / 'AtomicCheckpointHook' / name))
        assert theirs.keys() == ours.keys()
        assert all(torch.equal(v, ours['state_dict'][k]) for k, v in theirs['state_dict'].items())


class FullDisk(Hook):
    """From the second epoch on no file can become larger than a few kB."""

    def __init__(self, size: int):
        self.size = size

    def after_train_epoch(self, runner):  # before the checkpoint hook
        if runner.epoch == 1:
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, hard))


@pytest.mark.parametrize('size', [2000, 4000])
@pytest.mark.parametrize('options', [dict(max_keep_ckpts=1), dict()])
def test_a_full_disk_leaves_the_last_good_one(tmp_path, options, size):
    runner = toy_runner(tmp_path, options)
    runner.register_hook(FullDisk(size), priority='LOW')
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(TrainingError) as caught:
            runner.train()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert 'File too large' in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert checkpoints(tmp_path) == ['epoch_1.pth']
    again = toy_runner(tmp_path, options, resume=True)
    assert epochs_run(again) == [2, 3]


def test_removal_waits_for_the_end_and_for_success(tmp_path):
    backend = AtomicLocalBackend()
    old, older, new = (tmp_path / name for name in ('old', 'older', 'new'))
    for path in (old, older):
        path.write_bytes(b'')
    with backend.removing_later():
        with backend.removing_later():
            backend.remove(old)
        backend.remove(older)
        AtomicLocalBackend().put(b'new', older)  # the same name, written anew
        assert old.exists()
        backend.put(b'1', new)
    assert not old.exists()
    assert older.read_bytes() == b'new'
    with pytest.raises(OSError), backend.removing_later():
        backend.remove(new)
        raise OSError
    assert new.read_bytes() == b'1'
    backend.remove(new)
    assert not new.exists()


def test_the_best_one_is_replaced_after_the_new_one_is_there(tmp_path):
    runner = toy_runner(tmp_path, dict(save_best='acc', rule='greater', max_keep_ckpts=1))
    hook = next(h for h in runner.hooks if type(h).__name__ == 'AtomicCheckpointHook')
    seen = []

    class Validate(Hook):
        def after_train_epoch(self, runner):
            hook.after_val_epoch(runner, dict(acc=float(runner.epoch)))
            seen.append(checkpoints(tmp_path))

        def before_save_checkpoint(self, runner, checkpoint):
            if runner.epoch == 2:
                assert any(n.startswith('best_acc_epoch_1') for n in checkpoints(tmp_path))

    runner.register_hook(Validate(), priority='LOWEST')
    runner.train()
    assert [[n for n in names if 'best' in n] for names in seen] == [
        ['best_acc_epoch_0.pth'],
        ['best_acc_epoch_1.pth'],
        ['best_acc_epoch_2.pth'],
    ]


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-500])


def test_resume_passes_over_what_is_damaged(tmp_path):
    """By the hook alone, as under the host libraries' own tools."""
    toy_runner(tmp_path).train()
    damage(tmp_path / 'epoch_3.pth')
    for left_over in ('epoch_3.part.pth', 'best_acc_epoch_2.part.pth'):
        (tmp_path / left_over).write_bytes(b'half')
    again = toy_runner(tmp_path, resume=True)
    assert epochs_run(again) == [3]
    assert checkpoints(tmp_path) == [f'epoch_{i}.pth' for i in (1, 2, 3)]
    log = max(tmp_path.glob('*/*.log'), key=lambda path: path.stat().st_mtime_ns).read_text()
    assert 'epoch_3.pth is passed over: it is cut off' in log


def test_nothing_whole_is_an_error_and_stays_as_it_is(tmp_path):
    toy_runner(tmp_path, epochs=1).train()
    damage(tmp_path / 'epoch_1.pth')
    data = (tmp_path / 'epoch_1.pth').read_bytes()
    with pytest.raises(CheckpointError, match=r'none to go on from(?s:.*)epoch_1\.pth'):
        toy_runner(tmp_path, resume=True).train()
    assert (tmp_path / 'epoch_1.pth').read_bytes() == data
    with pytest.raises(CheckpointError, match='cut off'):
        toy_runner(tmp_path, resume=True, load_from=str(tmp_path / 'epoch_1.pth')).train()


def test_in_a_folder_of_its_own(tmp_path):
    options = dict(out_dir=str(tmp_path / 'elsewhere'), max_keep_ckpts=2)
    toy_runner(tmp_path / 'run', options, epochs=2).train()
    folder = tmp_path / 'elsewhere/run'
    assert checkpoints(folder) == ['epoch_1.pth', 'epoch_2.pth']
    damage(folder / 'epoch_2.pth')
    (tmp_path / 'run/last_checkpoint').unlink()
    assert epochs_run(toy_runner(tmp_path / 'run', options, resume=True)) == [2, 3]


def test_another_backend_is_left_alone(tmp_path):
    hook = toy_runner(tmp_path, dict(backend_args=dict(backend='local'))).hooks[-1]
    assert type(hook).__name__ == 'AtomicCheckpointHook'
    assert hook.backend_args == dict(backend='local')


def test_interrupted_is_as_uninterrupted(tmp_path):
    """With the averages of EMAHook, and dropout and noise in it."""
    ema = [dict(type='EMAHook', momentum=0.1)]
    toy_runner(tmp_path / 'whole', hooks=ema).train()

    class Stop(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            if runner.iter == 6:
                raise KeyboardInterrupt

    runner = toy_runner(tmp_path / 'stopped', hooks=ema)
    runner.register_hook(Stop())
    with pytest.raises(KeyboardInterrupt):
        runner.train()
    assert epochs_run(toy_runner(tmp_path / 'stopped', hooks=ema, resume=True)) == [2, 3]
    first, second = (
        load_training_state(str(tmp_path / name / 'epoch_3.pth')) for name in ('whole', 'stopped')
    )
    for part in ('state_dict', 'ema_state_dict'):
        assert len(first[part]) > 6
        assert all(torch.equal(v, second[part][k]) for k, v in first[part].items())
    assert str(first['optimizer']) == str(second['optimizer'])
    assert first['param_schedulers'] == second['param_schedulers']
