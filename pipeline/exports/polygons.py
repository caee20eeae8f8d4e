"""Masks as polygons, so that the usual readers draw the same pixels again.

Outlines run through the middles of a mask's outermost pixels, as OpenCV finds them, and readers
(supervision, Ultralytics, LabelMe) fill them with their border. Some of these round coordinates
to the nearest pixel, some down: a vertex lies a quarter pixel from its pixel's corner, where both
give that pixel. Formats of one ring per object get holes and parts by cuts, walked there and back:
even-odd filling sees nothing of them but the line itself.

Points are (x, y) in pixels whose corner (0, 0) is the image's. Shapes: H×W pixels, n vertices.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import cv2
import numpy as np
from scipy.spatial import KDTree

from ..regions import Region

_INSIDE = 0.25  # of a pixel: right whether rounded down or to the nearest
_SPREAD = 0.2  # pixels around a vertex, for outlines that would have no area


def mask_polygons(mask: np.ndarray) -> list[np.ndarray]:
    """One ring per connected part of a mask, its holes joined to it, the largest part first.

    Args:
        mask: (H, W) bool. Pixels that touch at a corner are connected.

    Returns:
        Rings (n, 2) float64 of at least 3 vertices, not closed; none for an empty mask.
    """
    region = Region.from_mask(mask, copy=False)
    if not region.area:
        return []
    outlines, hierarchy = cv2.findContours(
        region.mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
    )
    rings = [_ring(outline, region) for outline in outlines]
    holes = defaultdict(list)
    for ring, (*_, parent) in zip(rings, hierarchy[0], strict=True):
        holes[parent].append(ring)  # -1: the parts themselves
    parts = [
        (cv2.contourArea(outlines[i]), join_rings([rings[i], *holes[i]]))
        for i, (*_, parent) in enumerate(hierarchy[0])
        if parent == -1
    ]
    return [ring for _, ring in sorted(parts, key=lambda part: -part[0])]


def _ring(outline: np.ndarray, region: Region) -> np.ndarray:
    """OpenCV's (n, 1, 2) integer outline in a region's box as a ring of the image."""
    ring = outline[:, 0].astype(np.float64)
    if len(ring) < 3:  # one pixel or a straight line
        corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * _SPREAD
        spread = (ring[:, None] + corners).reshape(-1, 2)
        ring = cv2.convexHull(spread.astype(np.float32))[:, 0].astype(np.float64)
    return ring + np.array([region.left, region.top]) + _INSIDE


def join_rings(rings: Sequence[np.ndarray]) -> np.ndarray:
    """One ring that encloses by the even-odd rule what all of them enclose.

    From the first ring a cut goes to every other, between their nearest vertices.

    Args:
        rings: (n, 2) each, at least one.
    """
    trunk, *others = rings
    if not others:
        return trunk
    tree = KDTree(trunk, leafsize=16)
    detours = defaultdict(list)
    for other in others:
        distance, nearest = map(np.asarray, tree.query(other))
        start = int(distance.argmin())
        at = int(nearest[start])
        detours[at] += [other[start:], other[: start + 1], trunk[at : at + 1]]
    pieces, done = [], 0
    for at in sorted(detours):
        pieces += [trunk[done : at + 1], *detours[at]]
        done = at + 1
    return np.concatenate([*pieces, trunk[done:]])
