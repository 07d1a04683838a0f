"""Shipped configs by name: listed, found, copied."""

import pytest
from mmengine.config import Config

from mmdla.engine.config import read_config
from mmdla.errors import InputError
from mmdla_command import configs
from mmdla_command.files import home


def run(capsys, *argv):
    code = configs.main(argv)
    output = capsys.readouterr()
    return code, output.err if code else output.out


def test_lists_every_config_that_can_be_trained(capsys):
    code, text = run(capsys)
    assert code == 0
    assert text.split() == sorted(path.stem for path in (home() / 'configs').glob('*.py'))
    assert run(capsys, 'retinanet*r101') == (0, 'retinanet_dla_r101\n')
    assert run(capsys, 'vgg*')[0] == 2


@pytest.mark.parametrize('name', [p.stem for p in home().glob('configs/*.py')])
def test_a_copy_has_the_same_files(name, tmp_path):
    files = configs.copy_config(name, tmp_path / 'own')
    assert files[0] == tmp_path / 'own' / f'{name}.py'
    assert sorted(files) == sorted((tmp_path / 'own').rglob('*.py'))
    for file in files:
        shipped = home() / 'configs' / file.relative_to(tmp_path / 'own')
        assert file.read_bytes() == shipped.read_bytes()


# of each way to inherit: from a config, from one or two bases, from a library's config, from several
SAMPLE = ('faster_rcnn_dla_r101', 'cifar10_dla_b', 'bccd_deeper', 'retinanet_mrla_r50',
          'pspnet_dla_r50', 'imagenet_mrla_b_deit_tiny', 'demo_digits_dla_l')  # fmt: skip


@pytest.mark.parametrize('name', SAMPLE)
def test_a_copy_is_the_same_config(name, tmp_path):
    files = configs.copy_config(name, tmp_path / 'own')
    copy, shipped = Config.fromfile(files[0]), read_config(name)
    assert copy.to_dict() == shipped.to_dict()


def test_copies_what_it_inherits_and_nothing_else(capsys, tmp_path):
    code, text = run(capsys, '--copy', 'faster_rcnn_dla_r101.py', '--to', str(tmp_path))
    assert code == 0
    names = ['faster_rcnn_dla_r101.py', 'faster_rcnn_dla_r50.py']
    assert text.splitlines() == [str(tmp_path / name) for name in names]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_changed_files_are_not_written_over(capsys, tmp_path):
    argv = ('--copy', 'retinanet_dla_r101', '--to', str(tmp_path))
    assert run(capsys, *argv)[0] == run(capsys, *argv)[0] == 0
    (tmp_path / 'retinanet_dla_r50.py').write_text('own = True')
    (tmp_path / 'retinanet_dla_r101.py').unlink()
    code, text = run(capsys, *argv)
    assert code == 2 and 'retinanet_dla_r50.py exists and differs' in text
    assert not (tmp_path / 'retinanet_dla_r101.py').exists()


def test_unknown_names(capsys, tmp_path):
    code, text = run(capsys, '--copy', 'retinanet_dla_r5', '--to', str(tmp_path / 'new'))
    assert code == 2 and "did you mean 'retinanet_dla_r50'?" in text
    assert not (tmp_path / 'new').exists()
    with pytest.raises(SystemExit):
        configs.main(['--to', str(tmp_path)])


def test_a_file_wins_over_a_shipped_config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = 'faster_rcnn_dla_r50'
    assert configs.find_config(name) == configs.find_config(f'{name}.py')
    assert configs.find_config(name) == home() / 'configs' / f'{name}.py'
    (tmp_path / name).write_text('')
    assert configs.find_config(name) == configs.Path(name)
    assert configs.find_config(f'nowhere/{name}.py') == configs.Path(f'nowhere/{name}.py')
    with pytest.raises(InputError, match=r'nowhere/f\.py'):
        read_config('nowhere/f.py')


def test_package_without_configs_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match='install mmdla again'):
        home(tmp_path)
    (tmp_path / 'mmdla/.mim/configs').mkdir(parents=True)
    assert home(tmp_path) == tmp_path / 'mmdla/.mim'
