"""Where to click in a region.

    pole      the pixel deepest inside the region: largest distance to its outline × probability.
              SAM 2's interactive protocol clicks the largest distance (in the sam2 package,
              `sample_one_point_from_error_center`); the probability draws the click to where the
              class is sure. As there, the image border is part of the outline: an object that
              the border cuts off is clicked in the middle of what is seen of it.
    centroid  the mean of the region's pixels, or the region's pixel nearest to it
    peak      the pixel of highest probability, among equals the one deepest inside
    multi     several points: the pole, then again and again the pixel farthest from the points so
              far, among those at least half as deep as the deepest

What is still tied goes to the pixel nearest to the centroid, then to the first in reading order:
the result is deterministic, and another order of the classes only reorders it.

Points are (x, y) pixels of the image.
Shapes: h×w of a region's box.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from .regions import Region

Point = tuple[int, int]  # (x, y)


def _depth(mask: np.ndarray) -> np.ndarray:
    """Euclidean distance of each pixel to the nearest one outside, (h, w) float32, 0 outside."""
    # Padding makes the box's surroundings, the image border among them, count as outside.
    padded = np.pad(mask, 1).astype(np.uint8)
    return cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]


def _best(region: Region, *keys: np.ndarray) -> Point:
    """The region's pixel with the highest first key, then second, ..., nearest to the centroid."""
    mask, tied = region.mask, region.mask
    for key in keys:
        tied = tied & (key == key[tied].max())
    ys, xs = np.nonzero(tied)
    if len(ys) > 1:
        height, width = mask.shape
        area = np.count_nonzero(mask)
        cy = mask.sum(axis=1) @ np.arange(height) / area
        cx = mask.sum(axis=0) @ np.arange(width) / area
        nearest = np.argmin((ys - cy) ** 2 + (xs - cx) ** 2)
        ys, xs = ys[nearest:], xs[nearest:]
    return region.left + int(xs[0]), region.top + int(ys[0])


def pole(region: Region, inside: np.ndarray) -> Point:
    """The pixel deepest inside the region, weighted by its (h, w) probabilities."""
    return _best(region, _depth(region.mask) * inside)


def _multi(region: Region, inside: np.ndarray, count: int) -> list[Point]:
    depth = _depth(region.mask)
    points = [_best(region, depth * inside)]
    ys, xs = np.nonzero(depth >= depth.max() / 2)  # points on the outline prompt badly
    gap = np.full(len(ys), np.inf)  # squared distance to the points so far
    while len(points) < count:
        x, y = points[-1]
        gap = np.minimum(gap, (ys + region.top - y) ** 2 + (xs + region.left - x) ** 2)
        farthest = int(gap.argmax())
        if gap[farthest] == 0:
            break  # a region smaller than the number of points
        points.append((region.left + int(xs[farthest]), region.top + int(ys[farthest])))
    return points


# (region, its (h, w) probabilities, number of points) → points, all inside the region
STRATEGIES: dict[str, Callable[[Region, np.ndarray, int], list[Point]]] = {
    "pole": lambda region, inside, count: [pole(region, inside)],
    "centroid": lambda region, inside, count: [_best(region)],
    "peak": lambda region, inside, count: [_best(region, inside, _depth(region.mask))],
    "multi": _multi,
}


def nearest_points(points: Sequence[Point], region: Region, count: int) -> list[Point]:
    """The points nearest to any pixel of the region, nearest first, at most `count`."""
    if not (points and count):
        return []
    from scipy.spatial import KDTree  # takes long to load, and the names above need not

    # A pixel nearest to something outside has a neighbour outside, so the outline is enough.
    ys, xs = np.nonzero(_depth(region.mask) == 1)
    outline = np.stack([xs + region.left, ys + region.top], axis=1)
    distances, _ = KDTree(outline).query(np.array(points))
    order = sorted(range(len(points)), key=lambda i: (distances[i], points[i][::-1]))
    return [points[i] for i in order[:count]]
