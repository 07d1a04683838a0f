"""Damage of checkpoints is seen, and the latest valid one is found."""

import os
import zipfile

import pytest
import torch

from mmdla.checkpoint import CheckpointError
from mmdla.checkpoint.integrity import latest_valid_checkpoint, verify_checkpoint


@pytest.fixture
def save(tmp_path):
    """``save('epoch_1.pth', age)`` writes a small checkpoint that is so many seconds old."""

    def write(name: str, age: int = 0):
        path = tmp_path / name
        torch.save(dict(state_dict=dict(w=torch.randn(64, 64)), meta=dict(epoch=1)), path)
        os.utime(path, (1e9 - age, 1e9 - age))
        return path

    return write


def last(tmp_path, text, age: int = 0):
    path = tmp_path / 'last_checkpoint'
    path.write_text(str(text))
    os.utime(path, (1e9 - age, 1e9 - age))


def newest(tmp_path, template='epoch_{}.pth'):
    told = []
    found = latest_valid_checkpoint(tmp_path, tmp_path, template, told.append)
    return found and found.name, '\n'.join(told)


def test_a_valid_file_has_no_damage(save, tmp_path):
    assert verify_checkpoint(save('epoch_1.pth')) is None
    torch.save({}, tmp_path / 'legacy.pth', _use_new_zipfile_serialization=False)
    assert verify_checkpoint(tmp_path / 'legacy.pth') is None


def test_every_truncation_is_seen(save):
    path = save('epoch_1.pth')
    data = path.read_bytes()
    cuts = [*range(0, len(data), len(data) // 40), *range(len(data) - 30, len(data))]
    for cut in cuts:
        path.write_bytes(data[:cut])
        assert verify_checkpoint(path) is not None, cut
    path.write_bytes(b'')
    assert verify_checkpoint(path) == 'the file is empty'


def test_every_changed_byte_of_a_tensor_is_seen(save):
    path = save('epoch_1.pth')
    data = path.read_bytes()
    tensor = torch.load(path, weights_only=True)['state_dict']['w'].numpy().tobytes()
    start = data.index(tensor)
    for place in range(start, start + len(tensor), len(tensor) // 50):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        assert 'checksum' in verify_checkpoint(path), place


def test_other_files_are_no_checkpoints(tmp_path):
    text, archive = tmp_path / 'text.pth', tmp_path / 'archive.pth'
    text.write_text('no checkpoint')
    with zipfile.ZipFile(archive, 'w') as file:
        file.writestr('readme', 'nothing')
    assert verify_checkpoint(text) is not None
    assert 'not one of PyTorch' in verify_checkpoint(archive)
    assert 'no such file' in verify_checkpoint(tmp_path / 'none.pth')


def test_last_checkpoint_is_followed(save, tmp_path):
    """A file of a higher number that is older belongs to another training in the folder."""
    save('epoch_12.pth', age=100)
    save('epoch_2.pth', age=20)
    path = save('epoch_3.pth', age=10)
    last(tmp_path, path, age=9)
    assert newest(tmp_path) == ('epoch_3.pth', '')


def test_a_checkpoint_written_after_it_is_newer(save, tmp_path):
    """The run was killed before it wrote the name."""
    last(tmp_path, save('epoch_3.pth', age=10), age=9)
    save('epoch_4.pth', age=1)
    assert newest(tmp_path) == ('epoch_4.pth', '')


def test_the_one_before_a_damaged_one(save, tmp_path):
    for number in (8, 9, 10):
        path = save(f'epoch_{number}.pth', age=20 - number)
    last(tmp_path, path, age=9)
    path.write_bytes(path.read_bytes()[:-100])
    found, told = newest(tmp_path)
    assert found == 'epoch_9.pth'
    assert 'epoch_10.pth is passed over: it is cut off' in told
    assert 'going on from' in told
    (tmp_path / 'epoch_9.pth').write_bytes(b'')
    found, told = newest(tmp_path)
    assert found == 'epoch_8.pth'
    assert 'epoch_9.pth is passed over: the file is empty' in told


@pytest.mark.parametrize('text', ['', '/nowhere/epoch_7.pth', 'garbage', b'\xff\xfe\x00', None])
def test_last_checkpoint_that_is_wrong(save, tmp_path, text):
    save('epoch_1.pth', age=10)
    save('epoch_2.pth', age=5)
    save('unrelated.pth')
    if isinstance(text, bytes):
        (tmp_path / 'last_checkpoint').write_bytes(text)
    elif text is not None:
        last(tmp_path, text)
    found, told = newest(tmp_path)
    assert found == 'epoch_2.pth'
    assert ('passed over' in told) == (text is not None)


def test_a_folder_that_was_moved(save, tmp_path):
    """``last_checkpoint`` holds the path of before."""
    save('epoch_1.pth', age=10)
    save('epoch_2.pth', age=5)
    last(tmp_path, '/before/epoch_2.pth', age=4)
    assert newest(tmp_path)[0] == 'epoch_2.pth'


def test_none_valid_is_an_error_and_none_at_all_is_not(save, tmp_path):
    assert newest(tmp_path) == (None, '')
    for number in (1, 2):
        save(f'epoch_{number}.pth').write_bytes(b'PK\x03\x04')
    with pytest.raises(CheckpointError, match=r'(?s)epoch_2\.pth: .*epoch_1\.pth: '):
        newest(tmp_path)


def test_iterations_and_names_of_ones_own(save, tmp_path):
    save('iter_200.pth')
    save('iter_1000.pth')
    save('epoch_9000.pth')
    assert newest(tmp_path, 'iter_{}.pth')[0] == 'iter_1000.pth'
    last(tmp_path, save('mine.pth', age=3))
    assert newest(tmp_path, 'iter_{}.pth')[0] == 'mine.pth'
