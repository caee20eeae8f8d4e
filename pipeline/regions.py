"""Regions of a class map: sets of pixels kept as crops, so that hundreds of masks stay small.

Points are (x, y) pixels, boxes XYXY with exclusive ends, sizes (H, W).
Shapes: H×W pixels of the image, h×w of a region's box, L side of a square grid over the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_ROWS_AT_ONCE = 256  # keeps temporary index arrays small on large images


@dataclass(frozen=True, eq=False, slots=True)
class Region:
    """The pixels `mask` of a box whose first pixel is (`left`, `top`)."""

    top: int
    left: int
    mask: np.ndarray  # (h, w) bool

    @classmethod
    def from_mask(cls, mask: np.ndarray, *, copy: bool = True) -> Region:
        """The pixels of an (H, W) bool mask, in their bounding box.

        Args:
            mask: (H, W) bool.
            copy: False keeps a view of `mask`, and with it all of its memory.
        """
        if mask.ndim != 2 or mask.dtype != bool:
            raise ValueError(
                f"a mask must be (H, W) bool, got {mask.dtype} of shape {mask.shape}; "
                "threshold scores first, e.g. logits > 0"
            )
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            return cls(0, 0, np.zeros((0, 0), bool))
        crop = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        return cls(int(rows[0]), int(columns[0]), crop.copy() if copy else crop)

    @property
    def box(self) -> tuple[int, int, int, int]:
        """XYXY, ends exclusive."""
        height, width = self.mask.shape
        return self.left, self.top, self.left + width, self.top + height

    @property
    def window(self) -> tuple[slice, slice]:
        """The box as an index into an (H, W) array."""
        x0, y0, x1, y1 = self.box
        return slice(y0, y1), slice(x0, x1)

    @property
    def area(self) -> int:
        """Number of pixels."""
        return int(np.count_nonzero(self.mask))

    def paste(self, size: tuple[int, int]) -> np.ndarray:
        """The region as a mask of the whole image, (H, W) bool."""
        self.check_inside(size)
        canvas = np.zeros(size, bool)
        canvas[self.window] = self.mask
        return canvas

    def overlap(self, other: Region) -> int:
        """Number of pixels that both have."""
        ax0, ay0, ax1, ay1 = self.box
        bx0, by0, bx1, by1 = other.box
        x0, y0, x1, y1 = max(ax0, bx0), max(ay0, by0), min(ax1, bx1), min(ay1, by1)
        if x0 >= x1 or y0 >= y1:
            return 0
        mine = self.mask[y0 - ay0 : y1 - ay0, x0 - ax0 : x1 - ax0]
        return int(np.count_nonzero(mine & other.mask[y0 - by0 : y1 - by0, x0 - bx0 : x1 - bx0]))

    def coverage(self, size: tuple[int, int], side: int) -> np.ndarray:
        """Share of each cell that the region covers, on a square grid over the image.

        Each axis is scaled by itself, as SAM squashes an image to a square. A pixel on the edge
        of cells counts in each by its share, so no region is too small to be seen.

        Args:
            size: (H, W) of the image.
            side: L.

        Returns:
            (L, L) float32 in 0..1.
        """
        self.check_inside(size)
        grid = np.zeros((side, side), np.float32)
        if self.mask.size:
            y0, rows = _bin_means(self.mask, self.top, size[0], side)  # (rows touched, w)
            x0, cells = _bin_means(rows.T, self.left, size[1], side)  # (columns, rows touched)
            grid[y0 : y0 + cells.shape[1], x0 : x0 + len(cells)] = cells.T
        return grid

    def check_inside(self, size: tuple[int, int]) -> None:
        """Raises ValueError when the box leaves an image of that size."""
        _, _, x1, y1 = self.box
        if self.top < 0 or self.left < 0 or y1 > size[0] or x1 > size[1]:
            raise ValueError(
                f"the region's box {self.box} (XYXY) leaves the image of size {tuple(size)} "
                "(H, W); give the size of the image it was found in"
            )


def _bin_means(values: np.ndarray, start: int, total: int, bins: int) -> tuple[int, np.ndarray]:
    """Means of rows over equal bins of an axis; `values` are rows `start`.. of `total`, others 0.

    Returns:
        the first bin touched, and (bins touched, w) float32.
    """
    length = len(values)
    first, end = start * bins // total, -(-(start + length) * bins // total)
    edges = np.clip(np.arange(first, end + 1) * (total / bins) - start, 0, length)
    # The integral of the rows is linear between pixel edges; counts of pixels stay exact integers.
    exact = np.int32 if values.dtype == bool else np.float64
    integral = np.zeros((length + 1, values.shape[1]), exact)
    np.cumsum(values, axis=0, dtype=exact, out=integral[1:])
    whole = np.minimum(edges.astype(int), length - 1)
    share = (edges - whole)[:, None]
    at_edges = integral[whole] * (1 - share) + integral[whole + 1] * share
    return first, (np.diff(at_edges, axis=0) * (bins / total)).astype(np.float32)


def class_probability(seg_map: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """Probability of each pixel's own class, (H, W) float32 or float64."""
    confidence = np.empty(seg_map.shape, np.float64 if probs.dtype == np.float64 else np.float32)
    for start in range(0, len(seg_map), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        index = seg_map[rows, :, None].astype(np.intp)
        confidence[rows] = np.take_along_axis(probs[rows], index, axis=2)[..., 0]
    low, high = confidence.min(), confidence.max()  # both NaN when any value is
    if not (low >= 0 and high <= 1 + 1e-3):
        raise ValueError(
            f"probs must be probabilities in 0..1, got values from {low:.4g} to {high:.4g}; "
            "take the softmax of logits over the classes first"
        )
    return confidence


def find_regions(
    seg_map: np.ndarray, chosen: np.ndarray, min_size: int
) -> list[tuple[int, Region]]:
    """Components of equal class among the chosen pixels, each with its class.

    Returns:
        by class, then from large to small, then in reading order.
    """
    labels, windows = _components(np.where(chosen, seg_map.astype(np.int32) + 1, 0))
    large = np.flatnonzero(np.bincount(labels.ravel())[1:] >= min_size)
    regions = [_crop(labels, windows, int(number) + 1) for number in large]
    found = [(int(seg_map[r.window].flat[r.mask.argmax()]), r) for r in regions]
    # Components are numbered in reading order of their first pixels, and the sort is stable.
    return sorted(found, key=lambda one: (one[0], -one[1].area))


def components_around(seg_map: np.ndarray, regions: Sequence[Region]) -> list[Region]:
    """For each region, the component of equal class that holds it; shared where regions share."""
    if not regions:
        return []
    labels, windows = _components(seg_map.astype(np.int32) + 1)
    numbers = [int(labels[r.window].flat[r.mask.argmax()]) for r in regions]
    components = {number: _crop(labels, windows, number) for number in set(numbers)}
    return [components[number] for number in numbers]


def _components(values: np.ndarray) -> tuple[np.ndarray, list[tuple[slice, slice]]]:
    """Numbers (H, W), from 1, of the 8-connected parts of equal value other than 0; their boxes."""
    from scipy import ndimage  # take long to load, and the names above need not
    from skimage.measure import label

    labels = np.asarray(label(values, background=0, connectivity=2))
    return labels, ndimage.find_objects(labels)


def _crop(labels: np.ndarray, windows: Sequence[tuple[slice, slice]], number: int) -> Region:
    window = windows[number - 1]
    return Region(window[0].start, window[1].start, labels[window] == number)
