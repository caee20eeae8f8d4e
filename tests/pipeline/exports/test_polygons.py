"""Polygons give the same pixels again, the way the formats' readers fill them."""

import time

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


def star(rings: list[np.ndarray]) -> np.ndarray:
    """Every ring joined to the first: the plain way, and the lines it costs."""
    trunk, *others = rings
    walk = [trunk]
    for other in others:
        distances = np.linalg.norm(trunk[:, None] - other, axis=2)
        at, start = np.unravel_index(distances.argmin(), distances.shape)
        walk += [trunk[[0]], trunk[: at + 1], other[start:], other[: start + 1], trunk[at::-1]]
    return np.concatenate(walk)


def test_many_parts_are_joined_by_short_lines():
    y, x = np.mgrid[:H, :W]
    random = np.random.default_rng(3).random((H, W)) > 0.97
    dots = cv2.dilate(random.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    row = (y > 8 + x // 4 % 3 * 6) & (y < 33) & (x % 4 < 3)
    checks = (y // 3 % 2 == 0) & (x // 3 % 2 == 0)
    for mask, most in ((dots, 0.35), (row, 0.1), (checks, 0.34)):
        rings = mask_polygons(mask)
        assert len(rings) > 10
        wrong, before = (np.sum(fill_truncated(j(rings)) != mask) for j in (join_rings, star))
        assert wrong < most * mask.sum() and wrong < before


def test_hundreds_of_parts_take_no_time():
    mask = np.zeros((400, 400), bool)
    mask[::8, ::8] = True  # 2500 parts, in a plane full of equal distances
    rings = mask_polygons(mask)
    start = time.perf_counter()
    joined = join_rings(rings)
    assert time.perf_counter() - start < 5
    assert len(joined) == sum(map(len, rings)) + 2 * (len(rings) - 1)
    same = [rings[0], rings[0].copy(), rings[1]]  # two at one place
    assert len(join_rings(same)) == sum(map(len, same)) + 4


def test_fewer_vertices_within_a_tolerance():
    y, x = np.mgrid[:200, :300]
    disk = (y - 90) ** 2 + (x - 140) ** 2 < 80**2
    exact, (ring,) = mask_polygons(disk)[0], mask_polygons(disk, 2)
    assert len(ring) < len(exact) / 5
    distance = cv2.distanceTransform((~disk).astype(np.uint8), cv2.DIST_L2, 5)
    canvas = cv2.fillPoly(np.zeros(disk.shape, np.uint8), [ring.astype(np.int32)], 1).astype(bool)
    assert distance[canvas].max(initial=0) <= 3 and iou(canvas, disk) > 0.95
    for mask in masks().values():  # nothing vanishes, however coarse
        assert len(mask_polygons(mask, 50)) == len(mask_polygons(mask))


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
