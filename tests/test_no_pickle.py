"""No code of the package or the tools unpickles a file.

Reading released checkpoints is tested with hostile ones (``tests/checkpoint/test_load.py``); this
keeps the next line of code from going around that.
"""

import ast

import pytest

MODULES = {'pickle', 'cPickle', 'dill', 'cloudpickle', 'joblib', 'shelve', 'marshal'}
CALLS = {'load', 'loads', 'open'}


def unpickling(source):
    """Lines of calls that build arbitrary objects from a file."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner = ast.unparse(node.func.value)
        keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
        if owner in MODULES and node.func.attr in CALLS:
            lines.append(node.lineno)
        elif owner == 'torch' and node.func.attr == 'load':
            restricted = keywords.get('pickle_module', '').endswith('restricted_pickle()')
            if not restricted and keywords.get('weights_only') != 'True':
                lines.append(node.lineno)
        elif node.func.attr == 'load' and keywords.get('allow_pickle', 'False') != 'False':
            lines.append(node.lineno)
    return lines


@pytest.mark.parametrize(
    'source',
    [
        'import pickle\npickle.load(file)',
        'pickle.loads(text)',
        'torch.load(path)',
        'torch.load(path, weights_only=False)',
        'torch.load(path, weights_only=flag)',
        'np.load(path, allow_pickle=True)',
    ],
)
def test_unpickling_is_found(source):
    assert unpickling(source)


@pytest.mark.parametrize(
    'source',
    [
        'torch.load(path, weights_only=True)',
        'torch.load(path, weights_only=False, pickle_module=restricted_pickle())',
        'pickle.dump(x, file)',
        'json.load(file)',
        'np.load(path)',
    ],
)
def test_what_is_harmless_is_not(source):
    assert not unpickling(source)


def test_nothing_is_unpickled(repo):
    files = [
        path
        for folder in ('mmdla', 'mmdla_command', 'tools', 'dev', 'projects', 'configs')
        for path in (repo / folder).rglob('*.py')
    ]
    files = [path for path in files if '.mim' not in path.parts]
    assert len(files) > 100
    found = {str(path): lines for path in files if (lines := unpickling(path.read_text()))}
    assert not found
