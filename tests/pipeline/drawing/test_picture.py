"""The picture shows what it should where it should, for images of every shape."""

import numpy as np
import pytest
from PIL import Image

from pipeline.drawing.layout import fit, picture_format, shorten, wrap
from pipeline.drawing.overlay import draw_overlay, resize_labels, resize_mask
from pipeline.drawing.palette import class_colors
from pipeline.drawing.picture import draw_segmentation, save_picture
from pipeline.result import Segmentation

GREY = 200  # of the test images


def scene(
    size=(120, 200), boxes=((20, 30, 90, 110),), class_ids=(1,), names=("dog", "cat"), source="sam2"
) -> tuple[np.ndarray, Segmentation]:
    """A grey image with one full rectangle per box (x0, y0, x1, y1), its point in the middle."""
    masks = np.zeros((len(boxes), *size), bool)
    label_map = np.zeros(size, np.uint8)
    for mask, (x0, y0, x1, y1), class_id in zip(masks, boxes, class_ids, strict=True):
        mask[y0:y1, x0:x1] = True
        label_map[mask] = class_id + 1
    count = len(boxes)
    return np.full((*size, 3), GREY, np.uint8), Segmentation(
        label_map=label_map,
        dense_map=label_map,
        masks=masks,
        class_ids=np.array(class_ids, int),
        scores=np.full(count, 0.5),
        confidences=np.full(count, 0.5),
        agreement=np.full(count, 0.5),
        boxes=np.array(boxes).reshape(-1, 4),
        points=tuple(np.array([[(x0 + x1) / 2, (y0 + y1) / 2]]) - 0.5 for x0, y0, x1, y1 in boxes),
        sources=(source,) * count,
        class_names=names,
    )


def blend(class_id: int) -> np.ndarray:
    return 0.55 * GREY + 0.45 * class_colors()[class_id]


def test_mask_point_and_outline_by_hand():
    image, segmentation = scene()
    drawn = draw_overlay(image, segmentation, (240, 400)).astype(int)  # twice as large
    assert drawn.shape == (240, 400, 3)
    np.testing.assert_array_equal(drawn[230, 390], [GREY] * 3)  # outside
    np.testing.assert_allclose(drawn[90, 60], blend(1), atol=2)  # inside: the cat's colour
    np.testing.assert_allclose(drawn[140, 110], class_colors()[1], atol=2)  # dot: (55, 70) twice
    assert drawn[140, 110 + 5].min() > 200  # its white edge
    np.testing.assert_allclose(drawn[100, 40], class_colors()[1], atol=40)  # outline, left edge
    assert (image == GREY).all()  # the input is left alone


def test_tag_lies_above_the_mask():
    image, segmentation = scene()
    with_tag = draw_overlay(image, segmentation, (240, 400)).astype(int)
    row = with_tag[48]  # the mask begins at row 60, the tag ends at 57
    cat = np.abs(row - class_colors()[1]).sum(axis=1) < 6
    assert cat.sum() > 30 and 110 in range(*np.flatnonzero(cat)[[0, -1]])


def test_fallback_regions_are_dotted():
    colors = []
    for source in ("sam2", "region"):
        image, segmentation = scene(source=source)
        edge = draw_overlay(image, segmentation, (240, 400))[66:214, 40].astype(int)
        colors.append((np.abs(edge - class_colors()[1]).sum(axis=1) < 60).mean())
    assert colors[0] == 1 and 0.3 < colors[1] < 0.8


def test_tags_do_not_hide_each_other_and_a_full_picture_leaves_some_out():
    def tags(count: int) -> int:
        image, segmentation = scene((120, 200), ((90, 50, 110, 70),) * count, (1,) * count)
        drawn = draw_overlay(image, segmentation, (240, 400)).astype(int)
        pure = np.abs(drawn - class_colors()[1]).sum(axis=2) < 6
        return int(pure.sum())

    one = tags(1)
    assert tags(3) > 1.8 * one  # three tags of one mask's size, side by side
    assert tags(60) == tags(40)  # there is room for a dozen only


def test_resized_labels_by_hand():
    labels = np.array([[1, 1, 0, 2], [1, 0, 2, 2]], np.uint8)
    np.testing.assert_array_equal(resize_labels(labels, (1, 2)), [[1, 2]])
    np.testing.assert_array_equal(
        resize_labels(labels, (20, 40)), labels.repeat(10, axis=0).repeat(10, axis=1)
    )
    np.testing.assert_array_equal(resize_labels(np.full((2, 3), 1203, np.uint16), (1, 1)), [[1203]])
    np.testing.assert_array_equal(resize_mask(labels == 1, (1, 2)), [[191, 0]])  # 3 of 4 pixels


@pytest.mark.parametrize(
    ("size", "expected"),
    [((300, 400), (900, 1200)), ((4000, 6000), (800, 1200)), ((1, 500), (32, 1200)),
     ((700, 1), (900, 32)), ((20, 20), (900, 900))],
)  # fmt: skip
def test_fit(size, expected):
    assert fit(size, (900, 1200)) == expected


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 500), (500, 1), (20, 20), (60, 400), (400, 60), (90, 120)]
)
def test_picture_of_any_shape(size):
    height, width = size
    image, segmentation = scene(size, ((0, 0, (width + 1) // 2, height),))
    picture = draw_segmentation(image, segmentation)
    assert picture.dtype == np.uint8 and picture.shape[2] == 3
    assert 500 < picture.shape[1] < 2000 and 150 < picture.shape[0] < 1700
    dense = (picture == class_colors()[1]).all(axis=2)  # the dense map, unblended
    assert dense.sum() > 200
    assert (picture == GREY).all(axis=2).sum() > 200  # the photograph


def test_large_image_is_drawn_small():
    boxes = ((100, 100, 3000, 3500), (3500, 50, 5000, 900))
    image, segmentation = scene((4000, 6000), boxes, (0, 1))
    picture = draw_segmentation(image, segmentation)
    assert max(picture.shape) < 2000
    for class_id in (0, 1):
        assert (picture == class_colors()[class_id]).all(axis=2).sum() > 2000


def test_empty_result():
    image = np.full((30, 40, 3), GREY, np.uint8)
    empty = Segmentation.empty((30, 40), ["cat"])
    np.testing.assert_array_equal(draw_overlay(image, empty, (60, 80)), GREY)
    assert draw_segmentation(image, empty).shape[2] == 3


def test_legend_lists_found_classes():
    image, one = scene(names=("dog", "cat"))
    _, both = scene(boxes=((20, 30, 90, 110), (120, 10, 180, 60)), class_ids=(1, 0))
    dog, cat = class_colors()[:2]

    def swatch(segmentation, color) -> bool:
        legend = draw_segmentation(image, segmentation)[-150:, :900]  # below all panels
        return (legend == color).all(axis=2).sum() > 200

    assert swatch(one, cat) and not swatch(one, dog)
    assert swatch(both, cat) and swatch(both, dog)


@pytest.mark.parametrize(
    "names",
    [
        ("x" * 300, "a class with a very long name " * 9),
        ("кошка", "猫"),
        ("قطة", "🐈"),
        ("two\nlines", "tab\tand\x00"),
        ("b\udce9", "%s {} \\n $x$"),
        tuple(f"class number {i}" for i in range(254)),
    ],
)
def test_any_name(names):
    ids = (0, len(names) - 1)
    image, segmentation = scene(
        boxes=((20, 30, 90, 110), (120, 10, 180, 60)), class_ids=ids, names=names
    )
    assert draw_segmentation(image, segmentation).shape[1] < 2000


def test_fifty_classes_found():
    boxes = [(x, y, x + 8, y + 15) for y in range(0, 100, 20) for x in range(0, 100, 10)]
    names = tuple(f"thing {i}" for i in range(50))
    image, segmentation = scene((100, 100), boxes, range(50), names)
    picture = draw_segmentation(image, segmentation)
    for color in class_colors()[:50]:
        assert (picture == color).all(axis=2).sum() > 200


def test_shorten():
    assert shorten("tv\n  monitor", 22) == "tv monitor"
    assert shorten("abcdef", 6) == "abcdef" and shorten("abcdefg", 6) == "abcde…"
    assert shorten("b\udce9", 9) == "b?"


def test_wrap():
    assert wrap("one two", 500) == ["one two"]
    lines = wrap("word " * 30, 200)
    assert len(lines) == 3 and lines[-1].endswith("word …")
    assert wrap("x" * 99, 20) == ["x" * 99]  # a word is not broken


def test_image_of_another_size_is_refused():
    image, segmentation = scene((120, 200))
    with pytest.raises(ValueError, match=r"shape \(120, 200, 3\), got uint8 \(200, 120, 3\)"):
        draw_segmentation(image.transpose(1, 0, 2), segmentation)
    with pytest.raises(ValueError, match="got float64"):
        draw_overlay(image / 255, segmentation, (10, 10))


@pytest.mark.parametrize("suffix", [".png", ".JPG", ".webp"])
def test_saved_picture(tmp_path, suffix):
    image, segmentation = scene()
    path = tmp_path / "new" / f"a{suffix}"
    save_picture(path, image, segmentation)
    drawn = draw_segmentation(image, segmentation)
    with Image.open(path) as saved:
        assert saved.format == picture_format(path)
        assert saved.size == drawn.shape[1::-1]
        error = np.abs(np.asarray(saved.convert("RGB")).astype(int) - drawn)
    assert error.mean() < (1e-9 if suffix == ".png" else 3)
    assert list(path.parent.iterdir()) == [path]


def test_unknown_ending_is_refused_before_drawing(tmp_path):
    image, segmentation = scene()
    for name in ("a", "a.txt", "a.png.gz"):
        with pytest.raises(ValueError, match=r"must end in \.png, \.jpg"):
            save_picture(tmp_path / name, image, segmentation)
    assert not list(tmp_path.iterdir())
