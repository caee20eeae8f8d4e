"""All scores of one predicted label map.

Shapes: C labels, H×W pixels. Truth: 0 background, `ignore` (255 unless said) void, not scored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .metrics import IGNORE, boundary_counts, checked_labels, edge_band, histogram
from .object_metrics import ObjectScore, score_objects


@dataclass(frozen=True, slots=True, eq=False)
class ImageScores:
    """Counts of one image, to be summed over a data set before ratios are taken.

    Attributes:
        confusion: (C, C) int64 pixels, rows true, columns predicted.
        edges: (C, C) int64, the same of the pixels at most 3 px from an outline of the truth.
        boundary: (2, C) int64, intersection and union of Boundary IoU.
        objects: one score per object; None without an object map.
    """

    confusion: np.ndarray
    edges: np.ndarray
    boundary: np.ndarray
    objects: list[ObjectScore] | None


def score_image(
    truth: np.ndarray,
    predicted: np.ndarray,
    objects: np.ndarray | None,
    count: int,
    ignore: int = IGNORE,
) -> ImageScores:
    """Compare two (H, W) maps of `count` labels; `objects` (H, W), see `score_objects`.

    ValueError when shapes differ or a map holds labels it may not, which includes `ignore` in the
    prediction.
    """
    if objects is not None and objects.shape != truth.shape:
        raise ValueError(
            f"The object map has shape {objects.shape}, the truth {truth.shape}; "
            "they belong to different images."
        )
    both = checked_labels(truth, predicted, count, ignore)
    return ImageScores(
        confusion=histogram(both, count),
        edges=histogram(both, count, edge_band(both[0])),
        boundary=boundary_counts(*both, count, ignore=count),
        objects=None if objects is None else score_objects(truth, predicted, objects, ignore),
    )
