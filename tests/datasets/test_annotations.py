"""What the check of annotations counts, at the border of each rule."""

import pytest

from mmdla.datasets.annotations import Use, check_content

WIDTH, HEIGHT = 40, 30
CROWD, OUTSIDE = 'crowd regions, ignored', 'outside of their image, left out'
REACHES, THIN = (
    'boxes that reach out of their image',
    'without an area or thinner than a pixel, left out',
)
SHORT = 'with polygons of less than three points, ignored'


def look(box, masks=False, **annotation):
    """Findings about one box beside another that is as it should be."""
    good = dict(id=1, image_id=1, category_id=1, bbox=[2, 3, 10, 10], area=100, iscrowd=0,
                segmentation=[[2, 3, 12, 3, 12, 13]])  # fmt: skip
    other = {**good, 'id': 2, 'bbox': box, 'area': box[2] * box[3], **annotation}
    content = dict(
        images=[dict(id=1, file_name='1.png', width=WIDTH, height=HEIGHT)],
        categories=[dict(id=1, name='cup')],
        annotations=[good, other],
    )
    return check_content(content, Use('a.json', classes=('cup',), trains=True, masks=masks))


# x, y, width, height; the image is 40 wide and 30 high
BOXES = {
    'inside': ([0, 0, 40, 30], None),
    'a pixel over on the right': ([30, 5, 11, 5], None),
    'more than a pixel over on the right': ([30, 5, 11.5, 5], REACHES),
    'a pixel over at the bottom': ([5, 20, 5, 11], None),
    'more than a pixel over at the bottom': ([5, 20, 5, 11.5], REACHES),
    'over on the left': ([-0.5, 5, 5, 5], REACHES),
    'over at the top': ([5, -0.5, 5, 5], REACHES),
    'touches the left border from outside': ([-5, 5, 5, 5], OUTSIDE),
    'touches the right border from outside': ([40, 5, 5, 5], OUTSIDE),
    'touches the upper border from outside': ([5, -5, 5, 5], OUTSIDE),
    'touches the lower border from outside': ([5, 30, 5, 5], OUTSIDE),
    'a sliver inside on the left': ([-5, 5, 5.25, 5], REACHES),
    'a sliver inside on the right': ([39.75, 5, 5, 5], REACHES),
    'a sliver inside at the top': ([5, -5, 5, 5.25], REACHES),
    'a sliver inside at the bottom': ([5, 29.75, 5, 5], REACHES),
    'a pixel wide': ([5, 5, 1, 5], None),
    'a pixel high': ([5, 5, 5, 1], None),
    'less than a pixel wide': ([5, 5, 0.9, 5], THIN),
    'less than a pixel high': ([5, 5, 5, 0.9], THIN),
}


@pytest.mark.parametrize('name', BOXES)
def test_boxes_at_the_border(name):
    box, remark = BOXES[name]
    found = look(box)
    assert not found.error()
    for one in (OUTSIDE, REACHES, THIN):
        assert found.remarks[one] == (one == remark), one


@pytest.mark.parametrize('name', BOXES)
def test_it_is_what_mmdetection_keeps(name):
    from mmdet.datasets import CocoDataset

    box, remark = BOXES[name]
    dataset = CocoDataset(lazy_init=True, data_prefix=dict(img=''))
    dataset.cat_ids, dataset.cat2label = [1], {1: 0}
    raw = dict(id=1, image_id=1, category_id=1, bbox=box, area=box[2] * box[3], iscrowd=0)
    image = dict(img_id=1, file_name='1.png', width=WIDTH, height=HEIGHT)
    parsed = dataset.parse_data_info(dict(raw_img_info=image, raw_ann_info=[raw]))
    assert len(parsed['instances']) == (remark not in (OUTSIDE, THIN))


@pytest.mark.parametrize(
    ('segmentation', 'is_short'),
    [
        ([[1, 2, 3, 4]], True),  # two points
        ([[1, 2, 3, 4, 5]], True),  # odd
        ([[1, 2, 3, 4, 5, 6]], False),  # three points
        ([[1, 2, 3, 4], [1, 2, 3, 4, 5, 6]], False),  # one of them will do
        ([[1, 2, 3, 4, 5, 6, 7]], True),
    ],
)
def test_polygons_need_three_points(segmentation, is_short):
    found = look([2, 3, 10, 10], masks=True, segmentation=segmentation)
    assert not found.error()
    assert found.remarks[SHORT] == is_short


def test_marks():
    assert look([2, 3, 10, 10], iscrowd=1).remarks[CROWD] == 1
    ignored = look([2, 3, 10, 10], ignore=True).remarks
    assert ignored['marked "ignore", left out'] == 1
    assert look([2, 3, 10, 10], area=0).remarks[THIN] == 1


def check(annotations, use=None, categories=(dict(id=1, name='cup'), dict(id=2, name='plate'))):
    """Findings about annotations of one image."""
    images = [dict(id=1, file_name='1.png', width=WIDTH, height=HEIGHT)]
    content = dict(images=images, categories=list(categories), annotations=annotations)
    return check_content(content, use or Use('a.json', classes=('cup',), trains=True))


def box(**changes):
    return dict(dict(id=1, image_id=1, category_id=1, bbox=[2, 3, 10, 10], area=100), **changes)


LEFT_OUT = {
    'ignored': dict(ignore=True),
    'no area': dict(area=0),
    'thin': dict(bbox=[2, 3, 0.5, 10]),
    'flat': dict(bbox=[2, 3, 10, 0.5]),
    'outside': dict(bbox=[2, 300, 10, 10]),
    'another class': dict(category_id=2),
    'another image': dict(image_id=2),
}


@pytest.mark.parametrize('name', LEFT_OUT)
def test_what_is_left_out_is_no_box(name):
    other = LEFT_OUT[name]
    assert 'no box is left (1)' in check([box(**other)]).error()
    without = check([box(**other)], Use('a.json', classes=('cup',)))
    assert without.error() is None, 'a test set needs none'
    assert without.remarks['images without a box'] == 1
    both = check([box(), box(id=2, **other)])
    assert both.error() is None
    assert both.remarks['images without a box'] == 0
    assert both.remarks['annotations'] == 2
    assert both.remarks['of images that are not listed'] == (name == 'another image')


@pytest.mark.parametrize('iscrowd', [0, 1])
def test_crowds_are_boxes(iscrowd):
    assert check([box(iscrowd=iscrowd)]).error() is None


@pytest.mark.parametrize('classes', [None, ('cup',)])
def test_no_categories(classes):
    found = check([], Use('a.json', classes=classes), categories=[])
    assert list(found.counts) == ['no categories']


def test_classes_that_are_not_known():
    """Then all of the file's are."""
    found = check([box(category_id=2)], Use('a.json', classes=None, trains=True))
    assert found.error() is None
    assert found.remarks['images without a box'] == 0


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (dict(file_name=''), 'images without a file name'),
        (dict(file_name=3), 'images without a file name'),
        (dict(width=0), 'images whose width and height are no sizes'),
        (dict(height=30.5), 'images whose width and height are no sizes'),
        (dict(id=1.5), 'ids of images that are neither integers nor strings'),
    ],
    ids=str,
)
def test_what_an_image_needs(change, words):
    image = dict(dict(id=1, file_name='1.png', width=WIDTH, height=HEIGHT), **change)
    content = dict(images=[image], categories=[dict(id=1, name='cup')], annotations=[])
    assert list(check_content(content, Use('a.json')).counts) == [words]


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (dict(area='1'), 'areas that are no numbers'),
        (dict(area=float('nan')), 'areas that are no numbers'),
        (dict(bbox=[1, 2, 3]), 'boxes that are no list of 4 numbers [x, y, width, height]'),
        (dict(bbox=(1, 2, 3, 4)), 'boxes that are no list of 4 numbers [x, y, width, height]'),
        (dict(category_id=7), 'annotations of unknown categories'),
        (dict(image_id=1.0), 'ids that are neither integers nor strings'),
        (dict(id=2), 'annotations with the id of another one'),
    ],
    ids=str,
)
def test_what_an_annotation_needs(change, words):
    found = check([box(id=2), box(**change)])
    assert list(found.counts) == [words] and found.counts[words] == 1
    assert ('annotation 2' if 'id' in change else 'annotation 1') in found.problems[words][0]


LENGTHS = [0, 5, 1195]


@pytest.mark.parametrize(
    ('counts', 'is_right'),
    [
        (LENGTHS, True),
        ('abc', True),
        (None, False),
        (1200, False),
        ('', False),
        ('ü', False),
        (dict.fromkeys(LENGTHS), False),
        ([0, 5, 1194], False),
        ([-1, 6, 1195], False),
        ([0.0, 5, 1195], False),
    ],
    ids=str,
)
def test_run_lengths(counts, is_right):
    masks = Use('a.json', classes=('cup',), trains=True, masks=True)
    segmentation = dict(size=[HEIGHT, WIDTH], counts=counts)
    found = check([box(segmentation=segmentation)], masks)
    assert (found.error() is None) == is_right
    if not is_right:
        assert 'no run lengths of their image' in found.error()
