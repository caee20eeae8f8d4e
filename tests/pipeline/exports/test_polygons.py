"""Polygons give the same pixels again, the way the formats' readers fill them."""

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw

from pipeline.exports.polygons import join_rings, mask_polygons

from .samples import H, W, iou, masks


def fill_rounded(ring: np.ndarray) -> np.ndarray:  # as supervision
    canvas = np.zeros((H, W), np.uint8)
    return cv2.fillPoly(canvas, [np.round(ring).astype(np.int32)], 1).astype(bool)


def fill_truncated(ring: np.ndarray) -> np.ndarray:  # as Ultralytics
    canvas = np.zeros((H, W), np.uint8)
    return cv2.fillPoly(canvas, [ring.astype(np.int32)], 1).astype(bool)


def fill_pillow(ring: np.ndarray) -> np.ndarray:  # as LabelMe
    canvas = Image.new("L", (W, H))
    ImageDraw.Draw(canvas).polygon([tuple(point) for point in ring], outline=1, fill=1)
    return np.array(canvas, bool)


FILLS = (fill_rounded, fill_truncated, fill_pillow)


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("name", masks())
def test_part_by_part_nothing_is_lost(name, fill):
    mask = masks()[name]
    rings = mask_polygons(mask)
    assert all(ring.shape[1:] == (2,) and len(ring) >= 3 for ring in rings)
    assert np.array_equal(np.any([fill(ring) for ring in rings], axis=0), mask)


@pytest.mark.parametrize("fill", FILLS)
def test_one_ring_draws_the_cuts_between_parts(fill):
    found = masks()
    for name, mask in found.items():
        again = fill(join_rings(mask_polygons(mask)))
        if name not in ("parts", "blobs"):
            assert np.array_equal(again, mask), name
    assert iou(fill(join_rings(mask_polygons(found["parts"]))), found["parts"]) > 0.97
    assert iou(fill(join_rings(mask_polygons(found["blobs"]))), found["blobs"]) > 0.95


def test_by_hand():
    mask = np.zeros((5, 9), bool)
    mask[1:4, 2:6] = True
    (ring,) = mask_polygons(mask)
    # The middles of the corner pixels, of which either rounding gives the pixel.
    assert sorted(ring.tolist()) == [[2.25, 1.25], [2.25, 3.25], [5.25, 1.25], [5.25, 3.25]]
    mask[0, 8] = True
    large, small = mask_polygons(mask)  # the largest first
    assert sorted(large.tolist()) == sorted(ring.tolist())
    assert np.ptp(small, axis=0) == pytest.approx([0.4, 0.4]) and len(small) == 4
    assert mask_polygons(np.zeros((5, 9), bool)) == []


def test_rings_are_joined_at_the_nearest_vertices():
    trunk = np.array([[0, 0], [10, 0], [10, 10], [0, 10.0]])
    inner = np.array([[3, 3], [3, 7], [8, 8], [8, 3.0]])
    near = np.array([[12, 11], [13, 13.0], [11, 12]])
    joined = join_rings([trunk, inner, near]).tolist()
    assert joined == [
        [0, 0], [10, 0],
        [10, 10], [8, 8], [8, 3], [3, 3], [3, 7], [8, 8], [10, 10],
        [12, 11], [13, 13], [11, 12], [12, 11], [10, 10],
        [0, 10],
    ]  # fmt: skip
    assert join_rings([trunk]) is trunk
