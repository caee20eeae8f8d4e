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
from scipy.cluster.hierarchy import DisjointSet
from scipy.spatial import Delaunay

from ..regions import Region

_INSIDE = 0.25  # of a pixel: right whether rounded down or to the nearest
_SPREAD = 0.2  # pixels around a vertex, for outlines that would have no area


def mask_polygons(mask: np.ndarray, tolerance: float = 0.0) -> list[np.ndarray]:
    """One ring per connected part of a mask, its holes joined to it, the largest part first.

    Args:
        mask: (H, W) bool. Pixels that touch at a corner are connected.
        tolerance: pixels that outlines may be off to have fewer vertices; 0 keeps every pixel.

    Returns:
        Rings (n, 2) float64 of at least 3 vertices, not closed; none for an empty mask.
    """
    region = Region.from_mask(mask, copy=False)
    if not region.area:
        return []
    outlines, hierarchy = cv2.findContours(
        region.mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
    )
    rings = [_ring(_simplified(outline, tolerance), region) for outline in outlines]
    holes = defaultdict(list)
    for ring, (*_, parent) in zip(rings, hierarchy[0], strict=True):
        holes[parent].append(ring)  # -1: the parts themselves
    parts = [
        (cv2.contourArea(outlines[i]), join_rings([rings[i], *holes[i]]))
        for i, (*_, parent) in enumerate(hierarchy[0])
        if parent == -1
    ]
    return [ring for _, ring in sorted(parts, key=lambda part: -part[0])]


def _simplified(outline: np.ndarray, tolerance: float) -> np.ndarray:
    if not tolerance:
        return outline
    fewer = cv2.approxPolyDP(outline, tolerance, closed=True)
    return fewer if len(fewer) > 2 else outline  # else nothing would be left of its area


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

    The cuts, from vertex to vertex, are the shortest that connect all rings: a minimum spanning
    tree, whose edges are among those of Delaunay's triangulation.

    Args:
        rings: (n, 2) each, at least one.
    """
    if len(rings) == 1:
        return rings[0]
    points, lengths = np.concatenate(rings), [len(ring) for ring in rings]
    owner = np.repeat(np.arange(len(rings)), lengths)
    net = Delaunay(points)
    sides = [net.simplices[:, side] for side in ([0, 1], [1, 2], [2, 0])]
    # Of points at one place the net has one, and the others as its neighbours.
    pairs = np.concatenate([*sides, net.coplanar[:, [0, 2]]])
    pairs = np.sort(pairs[owner[pairs[:, 0]] != owner[pairs[:, 1]]], axis=1)
    distances = np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1)

    vertex = list(range(len(points)))  # of every step of the walk
    following = np.arange(1, len(points) + 1)  # step → step
    ends = np.cumsum(lengths)
    following[ends - 1] = ends - lengths
    following = following.tolist()
    joined = DisjointSet(range(len(rings)))
    for a, b in pairs[np.lexsort((*pairs.T, distances))].tolist():
        if joined.merge(int(owner[a]), int(owner[b])):
            # From a over to b's ring, all around it, and from b back to a.
            step = len(vertex)
            vertex += [b, a]
            following += [following[b], following[a]]
            following[a], following[b] = step, step + 1
    walk, step = [], 0
    for _ in vertex:
        walk.append(vertex[step])
        step = following[step]
    return points[walk]
