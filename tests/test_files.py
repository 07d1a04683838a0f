"""Files are there complete and on the disk, also on drives that cannot be synced."""

import errno
import os
import stat

import pytest

from mmdla.engine.atomic_checkpoint import AtomicLocalBackend
from mmdla.files import atomic_write


@pytest.fixture
def synced(monkeypatch):
    """What is synced, in order, and ``errors`` by kind (``'file'``, ``'folder'``)."""
    calls, errors, real = [], {}, os.fsync

    def fsync(descriptor):
        status = os.fstat(descriptor)
        kind = 'folder' if stat.S_ISDIR(status.st_mode) else 'file'
        if kind in errors:
            raise OSError(errors[kind], os.strerror(errors[kind]))
        real(descriptor)
        calls.append((kind, status.st_ino, status.st_size))

    replace = os.replace

    def rename(source, target):
        calls.append(('rename', os.stat(source).st_ino, str(target)))
        replace(source, target)

    monkeypatch.setattr(os, 'fsync', fsync)
    monkeypatch.setattr(os, 'replace', rename)
    return calls, errors


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name(tmp_path, synced):
    """All of its bytes, then the name, then the folder that holds the name."""
    path = tmp_path / 'run/epoch_1.pth'
    AtomicLocalBackend().put(b'12345', str(path))
    inode, folder = path.stat().st_ino, path.parent.stat().st_ino
    file, rename, last = synced[0]
    assert file == ('file', inode, 5)
    assert rename == ('rename', inode, str(path))
    assert last[:2] == ('folder', folder)


def test_other_files_are_not_waited_for(tmp_path, synced):
    with atomic_write(tmp_path / 'a.json') as part:
        part.write_text('{}')
    assert [kind for kind, *_ in synced[0]] == ['rename']


@pytest.mark.parametrize('code', ['EINVAL', 'ENOTSUP', 'ENOSYS', 'EBADF', 'EACCES', 'EPERM'])
def test_folders_that_cannot_be_synced(tmp_path, synced, code):
    synced[1]['folder'] = getattr(errno, code)
    AtomicLocalBackend().put(b'12345', tmp_path / 'a.pth')
    assert (tmp_path / 'a.pth').read_bytes() == b'12345'


def test_folders_that_cannot_be_opened(tmp_path, monkeypatch):
    """As on Windows."""
    real = os.open

    def open_file(path, *args, **kwargs):
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, 'Permission denied')
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, 'open', open_file)
    AtomicLocalBackend().put(b'12345', tmp_path / 'a.pth')
    assert (tmp_path / 'a.pth').read_bytes() == b'12345'


@pytest.mark.parametrize(
    ('kind', 'code'), [('file', 'EIO'), ('file', 'ENOSPC'), ('file', 'EDQUOT'), ('folder', 'EIO')]
)
def test_errors_of_the_disk_are_errors(tmp_path, synced, kind, code):
    (tmp_path / 'a.pth').write_bytes(b'old')
    synced[1][kind] = getattr(errno, code)
    with pytest.raises(OSError) as caught:
        AtomicLocalBackend().put(b'new', tmp_path / 'a.pth')
    assert caught.value.errno == getattr(errno, code)
    if kind == 'file':
        assert (tmp_path / 'a.pth').read_bytes() == b'old'
    assert [path.name for path in tmp_path.iterdir()] == ['a.pth']
