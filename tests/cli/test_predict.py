"""``tools/predict.py``: images, folders and videos in, drawn and as JSON out."""

import hashlib
import json
from pathlib import Path

import cv2
import mmcv
import numpy as np
import pytest
import torch
from fixtures import DINER, save_random_weights
from mmengine.config import Config
from PIL import Image
from pycocotools import mask as rle

CIFAR = Path(__file__).parents[1] / 'data' / 'cifar'


@pytest.fixture
def predict(cli, tmp_path):
    """``predict(*argv)``: exit code, standard error, and what predictions.json holds."""

    def call(*argv):
        out = tmp_path / 'out'
        code, message = cli('predict', *argv, '--out', out, '--device', 'cpu')
        report = out / 'predictions.json'
        return code, message, json.loads(report.read_text()) if report.exists() else None

    return call


@pytest.fixture
def classifier(repo, tmp_path) -> tuple[Path, Path]:
    """A small network for CIFAR-10; its data set reads no files."""
    config = tmp_path / 'cifar.py'
    config.write_text(f'_base_ = {str(repo / "configs/cifar10_dla_l.py")!r}\n')
    return config, save_random_weights(config, tuple('abcdefghij'))


@pytest.fixture
def video(tmp_path) -> Path:
    """A pan over a photograph: seven frames of 120x160."""
    path = tmp_path / 'pan.avi'
    photo = cv2.imread(str(DINER / 'photo.jpg'))
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'MJPG'), 10, (160, 120))
    for i in range(7):
        writer.write(np.ascontiguousarray(photo[100:220, 20 * i : 20 * i + 160]))
    writer.release()
    return path


def test_detector_on_a_folder(predict, small_config, checkpoint, tiny_coco, tmp_path):
    """Boxes are those of mmdet's own inference; damaged files are reported and passed over."""
    from mmdet.apis import inference_detector, init_detector
    from mmdet.datasets import CocoDataset

    folder = tmp_path / 'in'
    (folder / 'deeper').mkdir(parents=True)
    whole = (tiny_coco / 'val2017/000000000003.jpg').read_bytes()
    (folder / 'a.jpg').write_bytes(whole)
    (folder / 'deeper/a.jpg').write_bytes((tiny_coco / 'val2017/000000000004.jpg').read_bytes())
    (folder / 'cut.jpg').write_bytes(whole[: len(whole) // 2])
    (folder / 'empty.png').touch()
    (folder / 'text.jpg').write_text('no image')
    (folder / 'notes.txt').write_text('no image either, and not called one')
    code, message, report = predict(
        small_config, checkpoint, folder, tmp_path / 'none.jpg', '--batch-size', 2, '--score-thr', 0
    )
    assert code == 0
    failed = {Path(entry['file']).name: entry['reason'] for entry in report['failed']}
    assert set(failed) == {'cut.jpg', 'empty.png', 'text.jpg', 'none.jpg'}
    for name, reason in failed.items():
        assert f'{name}: {reason}' in message
    assert 'damaged' in failed['cut.jpg'] and 'empty' in failed['empty.png']
    results = {entry['drawn']: entry for entry in report['results']}
    assert set(results) == {'pictures/a.jpg', 'pictures/deeper/a.jpg'}
    model = init_detector(str(small_config), str(checkpoint), device='cpu')
    for drawn, entry in results.items():
        expected = inference_detector(model, entry['file']).pred_instances
        assert len(entry['predictions']) == len(expected) > 10
        for one, box in zip(entry['predictions'], expected.bboxes, strict=True):
            np.testing.assert_allclose(one['bbox'], box.numpy(), atol=0.1)
            assert one['class'] == CocoDataset.METAINFO['classes'][one['label']]
        image, source = mmcv.imread(str(tmp_path / 'out' / drawn)), mmcv.imread(entry['file'])
        assert image.shape == source.shape
        changed = np.abs(image.astype(int) - source).max(-1) > 60
        assert 0 < changed.mean() < 0.9
    assert not list((tmp_path / 'out').rglob('*part*'))


def test_threshold(predict, small_config, checkpoint, tiny_coco):
    image = tiny_coco / 'val2017/000000000003.jpg'
    _, _, report = predict(small_config, checkpoint, image, '--score-thr', 0)
    scores = sorted(one['score'] for one in report['results'][0]['predictions'])
    middle = scores[len(scores) // 2] + 5e-5
    _, _, report = predict(small_config, checkpoint, image, '--score-thr', middle)
    kept = [one['score'] for one in report['results'][0]['predictions']]
    assert sorted(kept) == [score for score in scores if score >= middle]


def test_masks(predict, two_stage, tiny_coco):
    image = tiny_coco / 'val2017/000000000003.jpg'
    code, _, report = predict(*two_stage, image, '--score-thr', 0)
    assert code == 0
    predictions = report['results'][0]['predictions']
    assert len(predictions) == 3
    shape = mmcv.imread(str(image)).shape[:2]
    for one in predictions:
        assert rle.decode(one['mask']).shape == shape
        assert {'bbox', 'label', 'class', 'score'} < set(one)


def test_classifier(predict, classifier, tmp_path):
    """Scores are the softmax of the network for the image in RGB, as CIFAR's data set reads it."""
    from mmdla.apis.model import load_model

    paths = sorted(CIFAR.glob('cifar10_0[0-3]*.png'))
    photo = tmp_path / 'photo.png'  # of another size, in the same batch
    cv2.imwrite(str(photo), cv2.imread(str(DINER / 'photo.jpg'))[100:150, 40:120])
    code, _, report = predict(*classifier, *paths, photo, '--batch-size', 3)
    assert code == 0
    cfg = Config.fromfile(classifier[0])
    model = load_model(cfg, classifier[1])
    preprocessor = cfg.data_preprocessor
    for path, entry in zip([*paths, photo], report['results'], strict=True):
        assert entry['file'] == str(path)
        rgb = cv2.imread(str(path))[..., ::-1]
        normed = (rgb - np.array(preprocessor.mean)) / np.array(preprocessor.std)
        image = torch.from_numpy(normed).float().permute(2, 0, 1)[None]
        with torch.no_grad():
            scores = model(image).softmax(1)[0]
        assert len(entry['predictions']) == 5
        for one, label in zip(entry['predictions'], scores.argsort(descending=True), strict=False):
            assert one['label'] == label and one['class'] == 'abcdefghij'[label]
            assert one['score'] == pytest.approx(scores[label].item(), abs=1e-4)
    drawn = mmcv.imread(str(tmp_path / 'out' / report['results'][0]['drawn']))
    assert drawn.shape == (224, 224, 3)


def test_classifier_with_files(predict, classifier, repo, tmp_path):
    """A config whose data set loads files: as MMPretrain's inferencer."""
    from mmpretrain import ImageClassificationInferencer

    config = tmp_path / 'files.py'
    config.write_text(f"""
_base_ = {str(repo / 'configs/imagenet_dla_l_r50.py')!r}
model = dict(backbone=dict(depth=18), head=dict(in_channels=512))
""")
    checkpoint = save_random_weights(config)
    code, _, report = predict(config, checkpoint, DINER / 'photo.jpg')
    assert code == 0
    inferencer = ImageClassificationInferencer(str(config), str(checkpoint), device='cpu')
    (expected,) = inferencer(str(DINER / 'photo.jpg'))
    best = report['results'][0]['predictions'][0]
    assert best['label'] == expected['pred_label']
    assert best['class'] == expected['pred_class']
    assert best['score'] == pytest.approx(expected['pred_score'], abs=1e-4)


def test_video(predict, small_config, checkpoint, video, tmp_path):
    """Every frame is predicted as an image of its own, and written at its place."""
    code, _, report = predict(small_config, checkpoint, video, '--batch-size', 3, '--score-thr', 0)
    assert code == 0
    (entry,) = report['results']
    assert entry['fps'] == 10
    written = mmcv.VideoReader(str(tmp_path / 'out' / entry['drawn']))
    assert (len(written), written.resolution, written.fps) == (7, (160, 120), 10)
    frames = list(mmcv.VideoReader(str(video)))
    assert len(entry['frames']) == len(frames) == 7
    image = tmp_path / 'frame.png'
    mmcv.imwrite(frames[4], str(image))
    _, _, report = predict(small_config, checkpoint, image, '--score-thr', 0)
    for one, of_video in zip(report['results'][0]['predictions'], entry['frames'][4], strict=True):
        np.testing.assert_allclose(one['bbox'], of_video['bbox'], atol=0.1)
    _, _, report = predict(small_config, checkpoint, video, '--batch-size', 3, '--score-thr', 1)
    written = mmcv.VideoReader(str(tmp_path / 'out' / report['results'][0]['drawn']))
    for index, got in enumerate(written):  # the drawing shifts an image by part of a pixel
        gaps = [np.abs(got.astype(int) - frame).mean() for frame in frames]
        assert np.argmin(gaps) == index


@pytest.mark.parametrize('content', ['text', 'cut', 'empty', 'missing'])
def test_unreadable_video(predict, small_config, checkpoint, video, tmp_path, content):
    path = tmp_path / 'bad.mp4'
    if content != 'missing':
        broken = dict(text=b'no video', cut=video.read_bytes()[:300], empty=b'')
        path.write_bytes(broken[content])
    code, message, _ = predict(small_config, checkpoint, path)
    assert code == 2
    assert 'bad.mp4: no' in message
    assert 'none of the 1 inputs could be read' in message
    assert not (tmp_path / 'out').exists()


def test_same_names_and_own_results(predict, classifier, tmp_path):
    """No result is written over another or over an input, and results are no inputs."""
    sources = sorted(CIFAR.glob('cifar10_0[0-2]*.png'))
    folder = tmp_path / 'out'  # also where the results go
    for name, source in zip(('a/x.png', 'b/x.png', 'x.png'), sources, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(source.read_bytes())
    before = {path: digest(path) for path in folder.rglob('*.png')}
    for _ in range(2):
        code, _, report = predict(*classifier, folder, folder / 'x.png', folder / 'a/x.png')
        assert code == 0
        drawn = [entry['drawn'] for entry in report['results']]
        names = ['a/x.png', 'b/x.png', 'x.png', 'x_2.png', 'x_3.png']
        assert drawn == [f'pictures/{name}' for name in names]
        assert len(list((folder / 'pictures').rglob('*.png'))) == 5
        assert before == {path: digest(path) for path in before}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ('argv', 'words'),
    [
        (['none.py', '{checkpoint}', '{image}'], 'none.py'),
        (['{config}', 'none.pth', '{image}'], 'none.pth'),
        (['{config}', '{config}', '{image}'], 'not a PyTorch checkpoint'),
        (['{config}', '{checkpoint}', '{empty}'], 'no images or videos in this folder'),
        (['{config}', '{checkpoint}', '{config}'], 'none of the 1 inputs could be read'),
        (['{config}', '{checkpoint}', '{image}', '--score-thr', '0.5'], '--score-thr is for det'),
        (['{config}', '{checkpoint}', '{image}', '--device', 'tpu9'], '--device tpu9'),
        (['{config}', '{checkpoint}', '{image}', '--device', 'cuda:99'], '--device cuda:99'),
        (
            ['{config}', '{checkpoint}', '{image}', '--cfg-options', 'model.backbone.depth=56'],
            'cannot be used with this config',
        ),
    ],
)  # fmt: skip
def test_bad_input(cli, classifier, tmp_path, argv, words):
    (tmp_path / 'empty').mkdir()
    image = next(CIFAR.glob('cifar10_*.png'))
    values = dict(zip(('config', 'checkpoint'), classifier, strict=True))
    values.update(image=image, empty=tmp_path / 'empty')
    out = tmp_path / 'out'
    code, message = cli('predict', *(arg.format(**values) for arg in argv), '--out', out)
    assert code == 2
    assert words in message
    assert not out.exists()


def test_folder_of_before_is_kept(cli, classifier, tmp_path):
    """Where nothing could be read only what the call itself made is removed again."""
    (tmp_path / 'out').mkdir()
    for out in (tmp_path / 'out', tmp_path / 'out/deeper/still'):
        code, _ = cli('predict', *classifier, classifier[0], '--out', out, '--device', 'cpu')
        assert code == 2
        assert (tmp_path / 'out').is_dir() and not list((tmp_path / 'out').iterdir())


def test_out_that_is_a_file(cli, classifier, tmp_path):
    code, message = cli('predict', *classifier, next(CIFAR.iterdir()), '--out', classifier[0])
    assert code == 2
    assert 'cannot be made a folder' in message


@pytest.mark.parametrize('option', [['--batch-size', '0'], ['--batch-size', 'x'], []])
def test_bad_options(tool, classifier, capsys, tmp_path, option):
    out = ['--out', str(tmp_path)] if option else []
    with pytest.raises(SystemExit) as error:
        tool('predict')([*map(str, classifier), str(DINER / 'photo.jpg'), *option, *out])
    assert error.value.code == 2
    assert (option or ['--out'])[0] in capsys.readouterr().err


def test_threshold_out_of_range(cli, small_config, checkpoint, tmp_path):
    code, message = cli(
        'predict',
        small_config,
        checkpoint,
        DINER / 'photo.jpg',
        '--out',
        tmp_path,
        '--score-thr',
        2,
    )
    assert code == 2
    assert '--score-thr must be in [0, 1], got 2' in message


def narrow_first(folder: Path, tiny_coco) -> Path:
    """An image that the pipeline makes 0 pixels wide before one that it takes."""
    folder.mkdir()
    cv2.imwrite(str(folder / 'a.png'), np.full((2000, 3, 3), 100, np.uint8))
    (folder / 'b.jpg').write_bytes((tiny_coco / 'val2017/000000000003.jpg').read_bytes())
    (folder / 'c.jpg').write_bytes((tiny_coco / 'val2017/000000000004.jpg').read_bytes())
    return folder


@pytest.mark.parametrize('batch', [1, 3])
def test_images_that_the_pipeline_cannot_take_are_passed_over(
    predict, small_config, checkpoint, tiny_coco, tmp_path, batch
):
    folder = narrow_first(tmp_path / 'in', tiny_coco)
    code, message, report = predict(small_config, checkpoint, folder, '--batch-size', batch)
    assert code == 0
    assert [Path(entry['file']).name for entry in report['results']] == ['b.jpg', 'c.jpg']
    (failed,) = report['failed']
    assert failed['file'] == str(folder / 'a.png')
    assert '3x2000 pixels' in failed['reason'] and f'a.png: {failed["reason"]}' in message


def test_images_that_the_model_cannot_take_are_passed_over(
    predict, small_config, checkpoint, tiny_coco, tmp_path, monkeypatch
):
    """The others of their batch are not lost with them."""
    from mmdla.apis.predict import Predictor

    real = Predictor._predict

    def refuse_height(self, data):
        if any(item['data_samples'].ori_shape == (50, 60) for item in data):
            raise RuntimeError('maps of no size')
        return real(self, data)

    monkeypatch.setattr(Predictor, '_predict', refuse_height)
    folder = narrow_first(tmp_path / 'in', tiny_coco)
    cv2.imwrite(str(folder / 'a.png'), np.full((50, 60, 3), 100, np.uint8))
    code, _, report = predict(small_config, checkpoint, folder, '--batch-size', 3)
    assert code == 0
    assert [Path(entry['file']).name for entry in report['results']] == ['b.jpg', 'c.jpg']
    (failed,) = report['failed']
    assert 'the model cannot take it (RuntimeError: maps of no size)' in failed['reason']


def test_what_cannot_be_drawn_is_still_predicted(
    predict, small_config, checkpoint, tiny_coco, monkeypatch
):
    from mmdla.apis.predict import Predictor

    def draw(*_):
        raise ValueError('no figure')

    monkeypatch.setattr(Predictor, 'draw', draw)
    image = tiny_coco / 'val2017/000000000003.jpg'
    code, message, report = predict(small_config, checkpoint, image)
    assert code == 0 and 'no figure' in message
    assert report['results'][0]['drawn'] is None and 'predictions' in report['results'][0]


def test_results_survive_an_interruption(
    predict, small_config, checkpoint, tiny_coco, tmp_path, monkeypatch
):
    from mmdla.apis.predict import Predictor

    real, calls = Predictor._predict, []

    def stop(self, data):
        calls.append(data)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, data)

    monkeypatch.setattr(Predictor, '_predict', stop)
    with pytest.raises(KeyboardInterrupt):
        predict(small_config, checkpoint, tiny_coco / 'val2017')
    assert len(json.loads((tmp_path / 'out/predictions.json').read_text())['results']) == 1


def test_gifs_and_other_images_of_a_folder(predict, classifier, tmp_path):
    """The first frame of a GIF is read; what is an image but not read is said to be so."""
    folder = tmp_path / 'in'
    folder.mkdir()
    source = mmcv.imread(str(next(CIFAR.glob('cifar10_00*.png'))))
    frames = [Image.fromarray(f[..., ::-1]) for f in (source, 255 - source)]
    frames[0].save(folder / 'a.gif', save_all=True, append_images=frames[1:])
    frames[0].convert('RGB').save(folder / 'b.png')
    for name in ('c.heic', 'd.svg', 'e.3gp', 'notes.txt'):
        (folder / name).write_text('something')
    code, message, report = predict(*classifier, folder)
    assert code == 0
    assert [entry['drawn'] for entry in report['results']] == ['pictures/a.png', 'pictures/b.png']
    gif, png = (entry['predictions'][0] for entry in report['results'])
    assert gif['score'] == pytest.approx(png['score'], abs=0.1)  # 256 colours
    failed = {Path(entry['file']).name: entry['reason'] for entry in report['failed']}
    assert set(failed) == {'c.heic', 'd.svg', 'e.3gp'}
    assert '.heic are not read' in failed['c.heic'] and 'd.svg' in message
    cut = (folder / 'a.gif').read_bytes()[:200]
    for path in folder.iterdir():
        path.unlink()
    (folder / 'cut.gif').write_bytes(cut)
    code, message, _ = predict(*classifier, folder)
    assert code == 2 and 'cut.gif: a damaged image' in message


def test_suffixes_are_documented(tool, capsys):
    for name in ('predict', 'look_inside'):
        with pytest.raises(SystemExit):
            tool(name)(['--help'])
        text = capsys.readouterr().out
        assert '.gif' in text and '.webp' in text
