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
