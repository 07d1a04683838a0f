"""Errors while data are read name the file; all others pass as they are."""

import json
import re
from urllib.error import URLError

import pytest
from mmengine.config import Config

from mmdla.datasets.data_errors import explain_data_errors
from mmdla.errors import InputError


@pytest.fixture
def cfg(tmp_path):
    (tmp_path / 'train').mkdir()
    (tmp_path / 'a.json').write_text('{}')
    dataset = dict(
        type='CocoDataset',
        data_root=str(tmp_path),
        ann_file='a.json',
        data_prefix=dict(img='train/'),
    )
    return Config(dict(train_dataloader=dict(dataset=dataset)))


def explained(cfg, error) -> str:
    with pytest.raises(InputError) as caught, explain_data_errors(cfg, ['train_dataloader']):
        raise error
    assert caught.value.__cause__ is error
    return str(caught.value)


def test_an_image_that_cannot_be_read(cfg, tmp_path):
    path = tmp_path / 'train/b.jpg'
    path.write_bytes(b'12345')
    quoted = "raise IOError(f'failed to load image: {filename}')\n"  # of a worker process
    text = explained(cfg, OSError(f'{quoted}OSError: failed to load image: {path}'))
    assert text == f'{path}: not an image that can be read (5 bytes)'
    path.unlink()
    assert 'no file' in explained(cfg, OSError(f'failed to load image: {path}'))


def test_an_image_that_is_not_there(cfg, tmp_path):
    error = FileNotFoundError(2, 'No such file or directory', str(tmp_path / 'train/c.jpg'))
    assert f'{tmp_path}/train/c.jpg: the annotations name' in explained(cfg, error)


def test_an_empty_image(cfg, tmp_path):
    (tmp_path / 'train/b.jpg').write_bytes(b'1')
    error = ValueError('imdecode: buf.empty()')
    with pytest.raises(ValueError) as caught, explain_data_errors(cfg, ['train_dataloader']):
        raise error
    assert caught.value is error, 'no file is empty'
    (tmp_path / 'train/d.jpg').touch()
    assert explained(cfg, error) == f'{tmp_path}/train/d.jpg: the file is empty'


def test_annotations_that_are_no_json(cfg, tmp_path):
    (tmp_path / 'a.json').write_text('{"images": [')
    error = json.JSONDecodeError('Expecting value', 'x', 0)
    assert re.match(rf'{tmp_path}/a.json: no valid JSON', explained(cfg, error))


def test_no_image_is_left(cfg, tmp_path):
    error = ValueError('need at least one array to concatenate')
    assert f'no image is left in {tmp_path}/a.json:' in explained(cfg, error)


def test_nothing_to_download_from(cfg, tmp_path):
    assert f'(refused): {tmp_path}' in explained(cfg, URLError('refused'))


@pytest.mark.parametrize(
    'error',
    [
        ValueError('sizes do not match'),
        FileNotFoundError(2, 'No such file or directory', '/elsewhere/c.jpg'),
        json.JSONDecodeError('Expecting value', 'x', 0),  # not of the annotations, which are whole
    ],
    ids=str,
)
def test_other_errors_pass(cfg, error):
    with pytest.raises(type(error)) as caught, explain_data_errors(cfg, ['train_dataloader']):
        raise error
    assert caught.value is error
