"""What README.md and docs/ show is real: snippets run, commands parse, links lead somewhere."""

import doctest
import importlib
import importlib.util
import inspect
import json
import re
import shlex
import shutil
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

import mmdla
from mmdla_command.main import COMMANDS

REPO = Path(__file__).parents[2]
FILES = [REPO / 'README.md', *sorted((REPO / 'docs').glob('*.md'))]
FENCE = re.compile(r'^```(\w*)\n(.*?)^```$', re.M | re.S)
NAMED = re.compile(r'`(\w+\.py)`[^`]*$')  # a file's name just before its snippet
PLAIN_COMMANDS = {'source', 'mkdir', 'ln'}
PAGES = [*FILES, *(REPO / f'{name}.md' for name in ('CONTRIBUTING', 'CHANGELOG', 'SECURITY'))]


def blocks(path: Path, language: str) -> list[tuple[str | None, str]]:
    """Snippets of a language, each with the name of the file that it is shown as."""
    text = path.read_text()
    found = []
    for match in FENCE.finditer(text):
        if match[1] == language:
            name = NAMED.search(text[: match.start()].rstrip())
            found.append((name and name[1], match[2]))
    return found


def is_script(code: str) -> bool:
    return re.search(r'^(import|from) ', code, re.M) is not None


def cases(*parts) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(('path', 'text'), *parts, ids=str)


def all_of(language: str) -> list:
    return [
        pytest.param(path, index, id=f'{path.stem}-{index}')
        for path in FILES
        for index in range(len(blocks(path, language)))
    ]


def test_there_are_snippets():
    assert {path.name for path in FILES} >= {
        'README.md', 'api.md', 'faq.md', 'how_it_works.md', 'performance.md', 'reproduce.md',
        'tutorial.md',
    }  # fmt: skip
    assert len(all_of('python')) >= 6
    assert len(all_of('bash')) >= 12
    assert len(all_of('pycon')) >= 4


@pytest.mark.parametrize(('path', 'index'), all_of('python'))
def test_config_snippets_build(path, index, tmp_path):
    """Each is written beside the files before it, loads, and its model is built."""
    snippets = blocks(path, 'python')[: index + 1]
    if is_script(snippets[-1][1]):
        compile(snippets[-1][1], str(path), 'exec')  # run by the tests below
        return
    for name, code in snippets:
        if not is_script(code):
            file = tmp_path / (name or 'snippet.py')
            base = '' if '_base_' in code else BASE
            file.write_text(base + code)
    cfg = Config.fromfile(file)
    init_default_scope(cfg.default_scope)
    cfg.model.pop('data_preprocessor', None)
    with torch.device('meta'):
        assert isinstance(
            MODELS.build(cfg.model).backbone, (mmdla.DLAResNet, mmdla.WithLayerAttention)
        )


BASE = "_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'\n"


@pytest.mark.parametrize(('path', 'index'), all_of('pycon'))
def test_examples_give_what_they_say(path, index):
    code = blocks(path, 'pycon')[index][1]
    test = doctest.DocTestParser().get_doctest(code, {}, f'{path.stem}-{index}', str(path), 0)
    assert test.examples
    runner = doctest.DocTestRunner()
    runner.run(test)
    assert runner.failures == 0


@pytest.fixture
def trees(tiny_coco, tmp_path) -> Path:
    """The tutorial's data set: real images with every instance called a tree."""
    root = tmp_path / 'data/trees'
    (root / 'annotations').mkdir(parents=True)
    for part in ('train', 'val'):
        shutil.copytree(tiny_coco / f'{part}2017', root / part)
        content = json.loads((tiny_coco / f'annotations/instances_{part}2017.json').read_text())
        content['categories'] = [dict(id=1, name='Tree')]
        for annotation in content['annotations']:
            annotation['category_id'] = 1
        (root / f'annotations/{part}.json').write_text(json.dumps(content))
    return root


def test_tutorial(tool, trees, resnet_checkpoint, tmp_path, monkeypatch, capsys):
    """From the first snippet to the last of the detector, with smaller images and one epoch."""
    monkeypatch.chdir(tmp_path)
    scripts = []
    for name, code in blocks(REPO / 'docs/tutorial.md', 'python'):
        if is_script(code):
            scripts.append(code)
        elif name:
            (tmp_path / name).write_text(code)
    exec(scripts[0], {})
    assert capsys.readouterr().out.splitlines()[-1] == '(1, 2048, 7, 7)'

    options = [
        'train_cfg.max_epochs=1',
        f'model.backbone.init_cfg.checkpoint={resnet_checkpoint(50)}',
        'train_dataloader.dataset.pipeline.2.scale=(160,128)',
        'val_dataloader.dataset.pipeline.1.scale=(160,128)',
        'train_dataloader.num_workers=0',
        'train_dataloader.persistent_workers=False',
        'val_dataloader.num_workers=0',
        'val_dataloader.persistent_workers=False',
        'default_hooks.checkpoint.save_optimizer=False',
    ]
    tool('train')(['my_trees.py', '--auto-scale-lr', '--cfg-options', *options])
    work_dir = tmp_path / 'work_dirs/my_trees'
    (work_dir / 'epoch_1.pth').rename(work_dir / 'epoch_12.pth')
    capsys.readouterr()
    exec(scripts[1].replace('score > 0.5', 'score >= 0.0'), {})
    found = [line for line in capsys.readouterr().out.splitlines() if line.startswith('[')]
    assert len(found) > 0
    exec(scripts[2], {})
    assert capsys.readouterr().out.startswith('epoch 1: AP ')
    assert len(scripts) == 3


def commands(path: Path) -> list[str]:
    """Command lines of the shell snippets, without what is set before them."""
    lines = []
    for _, text in blocks(path, 'bash'):
        for line in text.replace('\\\n', ' ').splitlines():
            for part in line.split('&&'):
                words = shlex.split(part, comments=True)
                while words and re.match(r'[A-Z_]+=', words[0]):
                    words.pop(0)
                if words:
                    lines.append(shlex.join(words))
    return list(dict.fromkeys(lines))


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f'docs_{path.stem}', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def parse():
    """Parse the arguments of a tool of ours by itself."""
    modules: dict[str, ModuleType] = {}

    def call(script: str, argv: list[str]):
        path = REPO / script
        assert path.is_file(), f'no {script}'
        if path.parent.name == 'demo':
            sys.path.insert(0, str(path.parent))
        module = modules.setdefault(script, None) or load(path)
        if hasattr(module, 'main'):  # a thin script has that of mmdla.cli
            module = sys.modules.get(module.main.__module__, module)
        modules[script] = module
        if not hasattr(module, 'parse_args'):
            assert not argv
            return None
        if not inspect.signature(module.parse_args).parameters:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(sys, 'argv', [script, *argv])
                return module.parse_args()
        return module.parse_args(argv)

    return call


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_commands_parse(path, parse):
    for line in commands(path):
        try:
            check_command(shlex.split(line), parse)
        except SystemExit as error:
            pytest.fail(f'{line}: refused by the parser ({error.code})')
        for config in re.findall(r'\bconfigs/\S+\.py', line):
            assert (REPO / config).is_file(), line


def check_command(words: list[str], parse) -> None:
    name, *argv = words
    if name == 'make':
        targets = re.findall(r'^(\w+):', (REPO / 'Makefile').read_text(), re.M)
        assert set(argv) <= set(targets), words
    elif name == 'mmdla':
        target = COMMANDS[argv[0]].target
        if target.startswith('mmdla.cli.'):
            importlib.import_module(target).parse_args(argv[1:])
    elif name in ('python', '.venv/bin/python'):
        args = parse(argv[0], argv[1:])
        if argv[0] == 'tools/reproduce.py' and args.table:
            module = load(REPO / argv[0])
            assert module.runs_of(module.tables.read_table(args.table, REPO), args)
    elif name.endswith('.sh'):
        script = REPO / name
        assert script.stat().st_mode & 0o111, words
        first, rest = {
            'dist_train.sh': (argv[:1], argv[2:]),
            'dist_test.sh': (argv[:2], argv[3:]),
            'slurm_train.sh': (argv[2:3], argv[3:]),
            'slurm_test.sh': (argv[2:4], argv[4:]),
        }[script.name]
        if script.name.startswith('dist'):
            assert int(argv[len(first)]) > 0
        parse(f'tools/{script.stem.split("_")[1]}.py', [*first, *rest])
    elif name == 'pytest':
        assert all((REPO / arg).exists() for arg in argv if '-' not in arg), words
    elif name == 'pip':
        assert argv[0] == 'install', words
        extras = re.findall(r'^(\w+) = \[', (REPO / 'pyproject.toml').read_text(), re.M)
        assert set(re.findall(r'(?:\.|whl|mmdla)\[(\w+)\]', ' '.join(argv))) <= set(extras), words
    else:
        assert name in PLAIN_COMMANDS, words


@pytest.mark.parametrize(
    'script',
    [
        'tools/train.py', 'tools/test.py', 'tools/reproduce.py', 'tools/benchmark.py',
        'dev/api_reference.py', 'dev/model_zoo.py',
    ],
)  # fmt: skip
def test_help(script, parse, capsys):
    with pytest.raises(SystemExit) as error:
        parse(script, ['--help'])
    assert error.value.code == 0
    assert 'usage' in capsys.readouterr().out


def anchors(path: Path) -> set[str]:
    """Ids of the headings of a page, as GitHub and MkDocs make them."""
    titles = re.findall(r'^#+ (.*)$', FENCE.sub('', path.read_text()), re.M)
    return {re.sub(r'[^\w\- ]', '', title).lower().strip().replace(' ', '-') for title in titles}


@pytest.mark.parametrize('path', PAGES, ids=lambda path: path.stem)
def test_links_lead_somewhere(path):
    links = re.findall(r'\]\(([^)\s]+)\)', FENCE.sub('', path.read_text()))
    for link in links:
        if '://' not in link:
            name, _, anchor = link.partition('#')
            target = path.parent / name if name else path
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def test_a_dead_link_would_be_found(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text('# A `b` c?\n[x](#a-b-c)\n')
    assert anchors(page) == {'a-b-c'}
    test_links_lead_somewhere(page)
    for link in ('gone.md', '#a-b', 'page.md#gone'):
        page.write_text(f'# A `b` c?\n[x]({link})\n')
        with pytest.raises(AssertionError):
            test_links_lead_somewhere(page)


def test_every_page_is_on_the_site():
    navigation = (REPO / 'mkdocs.yml').read_text().partition('nav:')[2]
    pages = sorted(path.name for path in (REPO / 'docs').glob('*.md'))
    assert sorted(re.findall(r'- (\w+\.md)$', navigation, re.M)) == pages


def test_pre_commit_runs_the_locked_ruff():
    asked = set(re.findall(r'ruff==[\d.]+', (REPO / '.pre-commit-config.yaml').read_text()))
    assert len(asked) == 1 and f'{asked.pop()} ;' in (REPO / 'requirements/onedl.txt').read_text()


def test_workflow_and_forms_are_read_as_they_are_meant():
    workflow = yaml.safe_load((REPO / '.github/workflows/test.yml').read_text())
    runs = [step.get('run', '') for job in workflow['jobs'].values() for step in job['steps']]
    assert any(run.startswith('.ci/run') for run in runs) and 'make docs' in runs
    for path in (REPO / '.github/ISSUE_TEMPLATE').glob('*.yml'):
        form = yaml.safe_load(path.read_text())
        assert path.name == 'config.yml' or {'name', 'description', 'body'} <= form.keys()


def test_citation_names_this_version():
    citation = yaml.safe_load((REPO / 'CITATION.cff').read_text())
    assert citation['version'] == mmdla.__version__
    readme = (REPO / 'README.md').read_text()
    assert f'{{{citation["preferred-citation"]["title"]}}}' in readme
    assert citation['preferred-citation']['doi'] in readme


@pytest.mark.parametrize('path', PAGES, ids=lambda path: path.stem)
def test_files_that_are_named_exist(path):
    folders = 'tools|dev|docs|configs|tests|projects|mmdla|mmdla_command|requirements'
    text = FENCE.sub('', path.read_text())
    for name in re.findall(rf'`((?:{folders})/[\w/.]+\.\w+)`', text):
        assert (REPO / name).exists(), f'{path.name}: {name}'


@pytest.mark.parametrize('path', PAGES, ids=lambda path: path.stem)
def test_names_of_the_package_can_be_imported(path):
    for name in re.findall(r'`(?:type=.)?(mmdla(?:\.\w+)+)', FENCE.sub('', path.read_text())):
        assert resolve(name), f'{path.name}: {name}'


@pytest.mark.parametrize('path', PAGES, ids=lambda path: path.stem)
def test_commands_in_sentences_exist(path):
    text = FENCE.sub('', path.read_text())
    for name in re.findall(r'(?<!\*)`mmdla ([a-z][\w-]*)', text):  # in bold: a message
        assert name in COMMANDS, f'{path.name}: mmdla {name}'


def resolve(name: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    module, *rest = name.split('.')
    found = importlib.import_module(module)
    for part in rest:
        if not hasattr(found, part):
            try:
                importlib.import_module(f'{found.__name__}.{part}')
            except (ImportError, AttributeError):
                return False
        found = getattr(found, part)
    return True


def test_a_name_that_is_gone_would_be_found():
    assert resolve('mmdla.apis.export.export_program') and not resolve('mmdla.apis.export.to_onnx')
    assert not resolve('mmdla.exports.export_program')


def test_api_reference_is_up_to_date(tool, monkeypatch, tmp_path):
    main = tool('api_reference')
    main(['--check'])
    old = tmp_path / 'api.md'
    old.write_text((REPO / 'docs/api.md').read_text().replace('Shapes (B, C_i', 'Shapes (B, C'))
    monkeypatch.setitem(main.__globals__, 'FILE', old)
    with pytest.raises(SystemExit, match=r'api\.md out of date'):
        main(['--check'])
    main([])
    assert old.read_text() == (REPO / 'docs/api.md').read_text()


def test_every_public_name_is_in_the_reference():
    text = (REPO / 'docs/api.md').read_text()
    names = [name for name in mmdla.__all__ if not name.startswith('__')]
    assert len(names) > 10
    assert all(f'\n### {name}\n' in text for name in names)


def test_figure(tmp_path, monkeypatch):
    drawn = REPO / 'docs/figures/layer_attention.svg'
    assert drawn.stat().st_size < 100_000
    module = load(REPO / 'docs/figures/layer_attention.py')
    monkeypatch.setattr(module, 'FILE', tmp_path / 'figure.svg')
    module.main()
    paths = [len(list(ET.parse(file).iter())) for file in (drawn, module.FILE)]
    assert paths[0] == paths[1] > 100
