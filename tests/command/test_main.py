"""The command ``mmdla``: what it knows before PyTorch is there, and whom it calls."""

import re
import subprocess
import sys
import types
from importlib.util import find_spec

import pytest

from mmdla_command import main as command
from mmdla_command import versions
from mmdla_command.files import home


def light(*argv, isolated=True):
    """Run the command with no package but its own to be imported (``-S``: no site-packages)."""
    code = (
        f'import sys; sys.path.append({str(home())!r}); from mmdla_command.main import main;'
        f'code = main({list(argv)!r}); assert "torch" not in sys.modules; sys.exit(code)'
    )
    options = ['-S', '-I'] if isolated else []
    return subprocess.run([sys.executable, *options, '-c', code], capture_output=True, text=True)


@pytest.mark.parametrize(
    ('argv', 'code', 'words'),
    [
        ((), 0, 'usage: mmdla COMMAND'),
        (('--help',), 0, 'install-mmcv'),
        (('configs', 'faster*'), 0, 'faster_rcnn_dla_r50\n'),
        (('version',), 0, 'Python'),
        (('--version',), 0, 'Python'),
        (('install-mmcv', '--help'), 0, '--cuda'),
        (('install-mmcv',), 2, 'onedl-mmengine and mmengine has to be installed, neither is'),
        (('trian',), 2, "no command 'trian', did you mean 'train'?"),
        (('fly',), 2, 'mmdla --help lists the commands'),
        (('train', 'x.py'), 2, 'mmdla install-mmcv'),  # nothing is installed: what to install
    ],
)
def test_without_any_package(argv, code, words):
    result = light(*argv)
    assert result.returncode == code, result.stderr
    assert words in (result.stderr if code else result.stdout)
    assert 'Traceback' not in result.stderr


def test_every_command_is_in_the_help_and_has_something_to_run():
    text = command.usage()
    for name, entry in command.COMMANDS.items():
        assert f'  {name} ' in text and entry.help
        assert not entry.target or find_spec(entry.target)


def test_scripts_get_the_command_line_and_its_name(capsys):
    with pytest.raises(SystemExit) as end:
        command.main(['get-flops', '--help'])
    assert end.value.code == 0
    assert 'usage: mmdla get-flops' in capsys.readouterr().out


def test_scripts_answer_wrong_input_with_exit_code_2(capsys):
    assert command.main(['get-flops', 'retinanet_dla_r5']) == 2
    assert "did you mean 'retinanet_dla_r50'?" in capsys.readouterr().err


def test_functions_get_the_command_line(monkeypatch):
    module = types.SimpleNamespace(main=lambda argv: len(argv))
    monkeypatch.setitem(sys.modules, 'mmdla.ops.build', module)
    assert command.main(['build', 'a', 'b', 'c']) == 3


def test_other_errors_of_an_import_pass(monkeypatch):
    def fail(_):
        raise ImportError('libGL.so.1', name='cv2')

    monkeypatch.setattr(command.importlib, 'import_module', fail)
    with pytest.raises(ImportError, match='libGL'):
        command.main(['build'])


def test_version_table_names_what_is_installed(monkeypatch):
    known = {
        'torch': '2.4.1', 'mmcv': '2.1.0', 'mmsegmentation': '1.2.2', 'mmpose': '1.3.2',
    }  # fmt: skip

    def version(name):
        if name not in known:
            raise versions.PackageNotFoundError(name)
        return known[name]

    monkeypatch.setattr(versions, 'version', version)
    first, *rest = versions.table().splitlines()
    assert first.startswith('Python ')
    assert [line.split() for line in rest] == [list(row) for row in known.items()]


def test_version_table_knows_every_library_that_is_pinned(repo):
    pins = '\n'.join(path.read_text() for path in (repo / 'requirements').glob('*-mm*.in'))
    names = re.findall(r'^((?:onedl-)?mm[a-z]+)==', pins, re.M)
    assert {'onedl-mmrotate', 'mmdet', 'mmcv'} <= set(names) <= set(versions.PACKAGES)
