"""The picture of a comparison shows both answers and their differences, for images of any shape."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from pipeline.app.compare import Comparison, measure
from pipeline.app.comparison_picture import (
    CAPTION,
    DIMMED,
    KINDS,
    TITLE,
    draw_comparison,
    kinds_of_difference,
    save_comparison,
)
from pipeline.drawing.layout import GAP, MARGIN
from pipeline.drawing.palette import UNNAMED, class_colors
from pipeline.result import Segmentation

from ..drawing.test_picture import GREY, scene


def comparison_of(without: Segmentation, with_loftup: Segmentation) -> Comparison:
    settings = {"prompts": 3, "loftup_share": 0.5}
    one, other = (dataclasses.replace(r, settings=settings) for r in (without, with_loftup))
    return Comparison(without=one, with_loftup=other, metrics=measure(one, other))


def two_answers(size=(120, 200), names=("dog", "cat")) -> tuple[np.ndarray, Comparison]:
    """The first half is a dog without LoftUp, the third quarter a cat with it.

    Halves and quarters of the longer side.
    """
    height, width = size

    def part(first: int, last: int) -> tuple[int, ...]:
        if width >= height:
            return (width * first // 4, 0, -(-width * last // 4), height)
        return (0, height * first // 4, width, -(-height * last // 4))

    image, one = scene(size, (part(0, 2),), (0,), names)
    _, other = scene(size, (part(2, 3),), (1,), names)
    return image, comparison_of(one, other)


def share(picture: np.ndarray, color) -> int:
    """Pixels of exactly this colour."""
    return int((picture == np.array(color, np.uint8)).all(axis=2).sum())


def test_kinds_of_differences_by_hand():
    without = np.array([[0, 1, 2, 0, 1, 254]], np.uint8)
    with_loftup = np.array([[0, 1, 0, 3, 2, 1]], np.uint8)
    kinds = kinds_of_difference(without, with_loftup)
    assert kinds.dtype == np.uint8 and kinds.tolist() == [[0, 0, 1, 2, 3, 3]]
    assert len(KINDS) == 3


def test_panels_by_hand():
    image, comparison = two_answers((450, 740))  # panels of exactly this ratio: two by three
    picture = draw_comparison(image, comparison).astype(int)
    panel_width = (2250 - 2 * GAP) // 3
    panel_height = round(450 * panel_width / 740)

    def at(row: int, column: int, y: float, x: float) -> np.ndarray:
        top = MARGIN + TITLE + row * (CAPTION + panel_height + GAP) + CAPTION
        return picture[
            top + int(y * panel_height),
            MARGIN + column * (panel_width + GAP) + int(x * panel_width),
        ]

    dog, cat = class_colors(2)
    np.testing.assert_array_equal(at(0, 0, 0.5, 0.5), [GREY] * 3)  # the image
    np.testing.assert_array_equal(at(0, 1, 0.8, 0.3), dog)  # dense maps
    np.testing.assert_array_equal(at(0, 1, 0.8, 0.6), UNNAMED)
    np.testing.assert_array_equal(at(0, 2, 0.8, 0.3), UNNAMED)
    np.testing.assert_array_equal(at(0, 2, 0.8, 0.6), cat)
    np.testing.assert_array_equal(at(1, 0, 0.8, 0.3), KINDS[0][1])  # differences
    np.testing.assert_array_equal(at(1, 0, 0.8, 0.6), KINDS[1][1])
    np.testing.assert_array_equal(at(1, 0, 0.8, 0.9), [int(GREY * DIMMED)] * 3)
    np.testing.assert_allclose(at(1, 1, 0.8, 0.3), 0.55 * GREY + 0.45 * dog, atol=2)  # masks
    np.testing.assert_array_equal(at(1, 1, 0.8, 0.9), [GREY] * 3)
    np.testing.assert_allclose(at(1, 2, 0.8, 0.6), 0.55 * GREY + 0.45 * cat, atol=2)
    assert (image == GREY).all()  # the input is left alone


@pytest.mark.parametrize(
    ("size", "columns"),
    [((1, 1), 3), ((20, 20), 3), ((90, 120), 3), ((100, 400), 2), ((1, 500), 1), ((40, 900), 1),
     ((400, 60), 6), ((500, 1), 6), ((300, 200), 3), ((190, 100), 3), ((193, 100), 6)],
)  # fmt: skip
def test_any_shape(size, columns):
    image, comparison = two_answers(size)
    picture = draw_comparison(image, comparison)
    assert picture.dtype == np.uint8 and picture.shape[2] == 3
    assert 1050 < picture.shape[1] <= 2310 and 500 < picture.shape[0] < 1900
    # The photograph is there as it is, and so are the colours of both answers.
    assert share(picture, (GREY,) * 3) > 1000
    for color in class_colors()[:2]:
        assert share(picture, color) > 1000
    kind = KINDS[2] if size == (1, 1) else KINDS[0]
    assert share(picture, kind[1]) > 1000
    # Down the left edge: panels, and letters and swatches of less than 20 pixels.
    ink = (picture[MARGIN + TITLE :, MARGIN] != 255).any(axis=1)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], ink, [False]])))
    assert ((edges[1::2] - edges[::2]) > 20).sum() == 6 // columns


def test_legend_and_notes():
    image, comparison = two_answers()
    _, dog_twice = two_answers(names=("dog", "cat", "zebra"))
    both = draw_comparison(image, comparison)
    plain, longer = both[-230:], draw_comparison(image, dog_twice)
    for color in (*class_colors()[:2], KINDS[0][1], KINDS[1][1]):
        assert share(plain, color) > 200
    assert longer.shape[0] == both.shape[0] + 24  # "Not found: zebra"
    assert not share(longer, class_colors()[2])
    one = comparison_of(comparison.without, comparison.without)
    assert not share(draw_comparison(image, one)[-230:], class_colors()[1])


def test_nothing_found_and_everything_named():
    image = np.full((30, 40, 3), GREY, np.uint8)
    empty = Segmentation.empty((30, 40), ["cat"])
    picture = draw_comparison(image, comparison_of(empty, empty))
    assert not share(picture[:-150], KINDS[0][1]) and not share(picture, class_colors()[0])
    full = np.ones((30, 40), np.uint8)
    named = dataclasses.replace(empty, label_map=full, dense_map=full)
    assert share(picture[-150:], UNNAMED) > 150
    assert not share(draw_comparison(image, comparison_of(named, named)), UNNAMED)


@pytest.mark.parametrize(
    "names",
    [("x" * 300, "b\udce9\n"), ("кошка", "猫"), tuple(f"class number {i}" for i in range(254))],
)
def test_any_name(names):  # the other ones: as in the picture of one result
    picture = draw_comparison(*two_answers(names=names))
    assert picture.shape[1] < 2350 and picture.shape[0] < 1900


def test_fifty_classes_found():
    names = tuple(f"thing number {i}" for i in range(50))
    boxes = [(4 * i, 0, 4 * i + 4, 120) for i in range(50)]
    image, one = scene((120, 200), boxes, range(50), names)
    picture = draw_comparison(image, comparison_of(one, one))
    for color in class_colors()[:50]:
        assert share(picture[-500:], color) > 200


def test_large_image_is_drawn_small():
    image, comparison = two_answers((2400, 3600))
    assert max(draw_comparison(image, comparison).shape) < 2350


def test_saved_picture(tmp_path):
    image, comparison = two_answers()
    save_comparison(tmp_path / "new" / "a.png", image, comparison)
    with Image.open(tmp_path / "new" / "a.png") as saved:
        np.testing.assert_array_equal(np.asarray(saved), draw_comparison(image, comparison))


def test_what_is_refused(tmp_path):
    image, comparison = two_answers()
    with pytest.raises(ValueError, match=r"must end in \.png, \.jpg"):
        save_comparison(tmp_path / "a.pdf", image, comparison)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match=r"shape \(120, 200, 3\), got uint8 \(200, 120, 3\)"):
        draw_comparison(image.transpose(1, 0, 2), comparison)
