"""The sheet shows the images that differ most, in VOC's colours, and who is right where."""

import numpy as np
import pytest

from pipeline.evaluation.report.contact_sheet import (
    BASELINE_RIGHT,
    BOTH_WRONG,
    CELL,
    GAP,
    MARGIN,
    OTHER_RIGHT,
    VOID,
    Row,
    draw_contact_sheet,
    draw_differences,
    draw_labels,
    pick,
)

from .made_up import LABELS

GREY = 100  # of the images
PALE = 0.4 * GREY + 0.6 * 255  # the same in a label map: 193
BIRD, CAT = (128, 128, 0), (64, 0, 0)  # VOC's colours of labels 3 and 8
SIZE = (60, 100)


def blocks(*labels, size=SIZE) -> np.ndarray:
    """A map of columns of equal width."""
    row = np.repeat(np.array(labels, np.uint8), size[1] // len(labels))
    return np.tile(row, (size[0], 1))


def make_row(**changes) -> Row:
    fields = {
        "id": "2008_000123",
        "image": np.full((*SIZE, 3), GREY, np.uint8),
        "truth": blocks(3, 3, 0, 8, 255),
        "baseline": blocks(3, 0, 0, 3, 3),
        "other": blocks(0, 3, 0, 0, 3),
        "baseline_score": 41.26,
        "other_score": 62.0,
    }
    return Row(**fields | changes)


def test_colours_of_labels():
    row = make_row()
    drawn = draw_labels(row.image, row.truth)
    assert drawn.shape == (*SIZE, 3) and drawn.dtype == np.uint8
    np.testing.assert_array_equal(drawn[5, 10], np.round(0.2 * PALE + 0.8 * np.array(BIRD)))
    np.testing.assert_array_equal(drawn[5, 50], [193, 193, 193])  # background
    np.testing.assert_array_equal(drawn[5, 70], np.round(0.2 * PALE + 0.8 * np.array(CAT)))
    np.testing.assert_array_equal(drawn[5, 90], [224, 224, 192])  # VOC's void
    assert (row.image == GREY).all()


def test_who_is_right():
    drawn = draw_differences(make_row())
    expected = [BASELINE_RIGHT, OTHER_RIGHT, (193, 193, 193), BOTH_WRONG, VOID]
    np.testing.assert_array_equal(drawn[30, 10::20], expected)


def test_panels_are_where_they_belong():
    # Three columns of the map are three fifths of the panel; the head is 128 px high.
    sheet = draw_contact_sheet([make_row()], arm="loftup", baseline="bilinear", labels=LABELS)
    assert sheet.shape[1] == 2 * MARGIN + 5 * CELL[1] + 4 * GAP
    y = sheet.shape[0] - 14 - 50  # within the panels, which are 192 px high
    seen = [sheet[y, MARGIN + column * (CELL[1] + GAP) + 32] for column in range(5)]
    bird = np.round(0.2 * PALE + 0.8 * np.array(BIRD))
    expected = [[GREY] * 3, bird, bird, [193] * 3, BASELINE_RIGHT]
    np.testing.assert_array_equal(seen, expected)


def test_legend_names_only_what_is_there():
    # Each name comes with a square of the class's colour; what the sheet draws differs by them.
    def colors(row):
        sheet = draw_contact_sheet([row], arm="a", baseline="b", labels=LABELS)
        caption = sheet[128:165].reshape(-1, 3)
        return {tuple(c) for c in np.unique(caption, axis=0).tolist()}

    found = colors(make_row())
    assert {BIRD, CAT, OTHER_RIGHT} <= found and (224, 224, 192) not in found
    assert CAT not in colors(make_row(truth=blocks(3, 3, 0, 0, 255)))
    assert BASELINE_RIGHT in colors(make_row(other_score=41.0))  # the colour of a loss


@pytest.mark.parametrize("size", [(60, 100), (1, 1), (500, 375), (20, 900)])
def test_any_image_and_long_names(size):
    maps = {name: np.zeros(size, np.uint8) for name in ("truth", "baseline", "other")}
    maps["truth"].flat[: len(LABELS)] = np.arange(len(LABELS))[: maps["truth"].size]
    row = make_row(id="x" * 99, image=np.zeros((*size, 3), np.uint8), **maps)
    names = {"arm": "loftup+maskclip+pamr+sam2+centroid", "baseline": "bilinear"}
    picture = draw_contact_sheet([row, make_row()], labels=LABELS, **names)
    assert (picture[:, -MARGIN // 2 :] == 255).all() and (picture[-5:] == 255).all()


def test_pick_by_hand():
    scores = {  # (baseline's mIoU, the arm's)
        "e": (10.00, 15.00), "d": (20.10, 25.10), "a": (50.0, 90.0), "same": (30.0, 30.0),
        "c": (60.0, 10.0), "b": (80.0, 79.9), "void": (None, None), "half": (40.0, None),
    }  # fmt: skip
    base, arm = ({name: pair[i] for name, pair in scores.items()} for i in range(2))
    assert pick(arm, base) == (["a", "d", "e"], ["c", "b"])
    assert pick(base, arm) == (["c", "b"], ["a", "d", "e"])
    assert pick(arm, arm) == ([], [])
    many = {str(i): 10.0 * i for i in range(9)}
    assert pick(many, dict.fromkeys(many, 45.0)) == (["8", "7", "6", "5"], ["0", "1", "2", "3"])
