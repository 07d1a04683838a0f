"""The hook in real training runs on real images."""

import json

import cv2
import pytest
import torch

from mmdla import LayerAttentionHook


@pytest.fixture
def train(tool, tiny_cifar, repo, tmp_path):
    """Train two epochs (six iterations) of a CIFAR config; the folder of the run."""
    root = tiny_cifar(100)

    def run(name: str, kind: str = 'dla_b', hook: str = '', backbone: str = ''):
        loader = 'num_workers=0, persistent_workers=False, batch_size=4'
        data = f'dict(data_root={str(root)!r})'
        config = tmp_path / f'{name}.py'
        config.write_text(f"""
_base_ = {str(repo / f'configs/cifar100_{kind}.py')!r}
model = dict(backbone=dict({backbone}))
train_dataloader = dict({loader}, dataset={data})
val_dataloader = dict({loader}, dataset={data})
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=2, val_interval=2)
default_hooks = dict(checkpoint=dict(interval=2), logger=dict(interval=1))
randomness = dict(seed=0, deterministic=True)
custom_hooks = [{hook}]
visualizer = dict(
    type='UniversalVisualizer',
    vis_backends=[dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')],
)
""")
        tool('train')([str(config), '--work-dir', str(tmp_path / name)])
        return tmp_path / name

    return run


def weights(folder):
    return torch.load(folder / 'epoch_2.pth', weights_only=False)['state_dict']


@pytest.mark.parametrize(
    ('kind', 'backbone'),
    [
        ('dla_b', 'with_cp=True'),
        ('dla_l', ''),
        ('dia', ''),
    ],
)
def test_same_weights_with_and_without(train, kind, backbone):
    off = weights(train('off', kind, backbone=backbone))
    hook = "dict(type='LayerAttentionHook', interval=3)"
    on = weights(train('on', kind, hook, backbone))
    assert off.keys() == on.keys()
    assert all(torch.equal(off[name], on[name]) for name in off)


def test_figures_and_scalars_reach_the_back_ends(train):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = train('on', hook="dict(type='LayerAttentionHook', interval=3)")
    (log,) = folder.glob('*/vis_data/scalars.json')
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    rows = [row for row in rows if 'layer_attention/layer1/weights/block1' in row]
    iterations = max(row['step'] for row in rows)
    assert [row['step'] for row in rows] == list(range(3, iterations + 1, 3))
    assert rows[0]['layer_attention/layer1/weights/block1'] == 1
    assert 0 < rows[0]['layer_attention/layer3/weights/block2'] < 1

    names = {'weights', 'kept', 'dsu_gates', 'dsu_context'}
    images = {f'layer_attention_{name}' for name in names}
    files = {path.stem for path in folder.glob('*/vis_data/vis_image/*.png')}
    assert files == {f'{name}_{row["step"]}' for name in images for row in rows}
    image = cv2.imread(str(next(folder.glob('*/vis_data/vis_image/*weights_3.png'))))
    assert image.shape[1] > 3 * image.shape[0], 'three stages side by side'

    (events,) = folder.glob('*/vis_data/events*')
    board = EventAccumulator(str(events)).Reload()
    assert images <= set(board.Tags()['images'])
    key = 'layer_attention/layer3/weights/block2'
    (first, *_) = board.Scalars(key)
    assert first.step == 3 and first.value == pytest.approx(rows[0][key])


def test_scalars_alone(train):
    hook = "dict(type='LayerAttentionHook', interval=2, figures=False)"
    folder = train('on', kind='mrla_l', hook=hook)
    (log,) = folder.glob('*/vis_data/scalars.json')
    assert 'layer_attention/layer2/lambdas/block1' in log.read_text()
    assert not list(folder.glob('*/vis_data/vis_image/*'))


def test_nothing_to_show(train):
    with pytest.raises(ValueError, match=r'layer_attention must be one .* got SE'):
        train('on', kind='se', hook="dict(type='LayerAttentionHook')")


@pytest.mark.parametrize('interval', [0, 1.5])
def test_bad_interval(interval):
    with pytest.raises((TypeError, ValueError), match='interval must be an integer >= 1'):
        LayerAttentionHook(interval=interval)


def test_two_backbones(tmp_path):
    """All of them, or the one that is named; another name is refused when training starts."""
    from mmengine.visualization import Visualizer
    from torch import nn
    from toy_training import ToyModel, toy_runner

    from mmdla import DLAResNet

    class Pair(ToyModel):
        """A student that learns and a teacher that runs beside it."""

        def __init__(self):
            super().__init__()
            attention = dict(type='DLALight', reduction=4, head_channels=8)
            small = dict(depth=18, base_channels=8, layer_attention=attention)
            self.student = nn.ModuleDict(dict(backbone=DLAResNet(**small)))
            self.teacher = nn.ModuleDict(dict(backbone=DLAResNet(**small)))

        def forward(self, inputs, data_samples=None, mode='loss'):
            images = inputs.new_ones(2, 3, 32, 32) * inputs.mean()
            with torch.no_grad():
                wanted = self.teacher.backbone(images)[-1]
            return dict(loss=(self.student.backbone(images)[-1] - wanted).square().mean())

    for choice, names in ((None, ('student', 'teacher')), ('teacher', ('teacher',))):
        hook = LayerAttentionHook(interval=4, figures=False, backbone=choice)
        written = {}
        runner = toy_runner(tmp_path, hooks=[hook], model=Pair(), epochs=1)
        runner.visualizer = Visualizer.get_instance(f'pair_{choice}')
        runner.visualizer.add_scalars = lambda values, w=written, **_: w.update(values)
        runner.train()
        layers = {key.split('/')[1] for key in written if 'layer_attention' in key}
        stages = [f'layer{i}' for i in (1, 2, 3, 4)]
        prefixes = [f'{name}.backbone.' if choice is None else '' for name in names]
        assert layers == {f'{prefix}{stage}' for prefix in prefixes for stage in stages}
    hook = dict(type='LayerAttentionHook', backbone='tutor')
    with pytest.raises(ValueError, match=r"'student\.backbone', 'teacher\.backbone'.*'tutor'"):
        toy_runner(tmp_path, hooks=[hook], model=Pair(), epochs=1).train()
    with pytest.raises(TypeError, match='backbone must be'):
        LayerAttentionHook(backbone=3)
