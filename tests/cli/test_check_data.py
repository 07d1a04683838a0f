"""``tools/check_data.py``: every annotation and every image of a config."""


def test_says_what_is_there(cli, small_config, tool, capsys):
    tool('check_data')([str(small_config)])
    out = capsys.readouterr().out
    assert 'instances_train2017.json: 2 images' in out
    assert out.count('2 images looked at') == 2


def test_names_a_broken_image(cli, small_config, own_coco):
    root, options = own_coco
    image = root / 'train2017/000000000002.jpg'
    image.write_bytes(image.read_bytes()[:5000])
    code, message = cli('check_data', small_config, *options)
    assert code == 2
    assert f'cut off (1): {image}' in message


def test_is_for_detectors(cli, repo):
    code, message = cli('check_data', repo / 'configs/cifar10_plain.py')
    assert code == 2
    assert 'COCO' in message
