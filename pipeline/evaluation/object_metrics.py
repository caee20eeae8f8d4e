"""How well single objects are segmented, small ones apart from large ones.

Shapes: H×W pixels. Truth: labels, 0 background, 255 void. Object map as in VOC's
SegmentationObject: 1…254 one object each, 0 background, 255 void. Areas count pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np

from .metrics import IGNORE, histogram

# Names and the areas they end before: COCO's small, medium and large, and the tiny ones apart.
SIZE_BINS = {
    "under 100 px²": 100,
    "100 px² to 32²": 32**2,
    "32² to 96²": 96**2,
    "over 96²": float("inf"),
}


class ObjectScore(NamedTuple):
    """One object; the last two are shares 0…1.

    Attributes:
        label: its class.
        area: its pixels in both maps, so no void ones.
        recall: share of them predicted as its class.
        iou: with the predicted region that stands for it, see `score_objects`.
    """

    label: int
    area: int
    recall: float
    iou: float


def score_objects(
    truth: np.ndarray, predicted: np.ndarray, objects: np.ndarray
) -> list[ObjectScore]:
    """One score per object with a class, by object number; all maps (H, W) uint8.

    A prediction names classes, not objects. What stands for an object is every 8-connected
    component of its class's prediction that shares a pixel with it, less the void pixels and the
    others that truly are of that class: merging neighbours of one class costs nothing, spilling
    does.
    """
    labels, areas = _objects(truth, objects)
    hits = np.zeros(255, np.int64)
    union = areas.copy()
    for label in np.unique(labels[labels > 0]):
        mask = (predicted == label).view(np.uint8)
        count, components = cv2.connectedComponents(mask, connectivity=8)
        pixels = np.flatnonzero(mask.view(bool) & (truth != IGNORE))
        members = np.flatnonzero(labels == label)
        # Row 0: spilled pixels; one row per object; the last: of the class, but of no such object.
        row_of = np.full(256, len(members) + 1, np.uint8)
        row_of[members] = np.arange(1, len(members) + 1)
        rows = cv2.LUT(objects, row_of) * (truth == label)
        cells = rows.ravel()[pixels].astype(np.int64) * count + components.ravel()[pixels]
        shared = np.bincount(cells, minlength=(len(members) + 2) * count).reshape(-1, count)
        spilled, inside = shared[0], shared[1:-1]
        hits[members] = inside.sum(1)
        union[members] += (inside > 0) @ spilled
    found = np.flatnonzero(labels)
    columns = (labels, areas, hits / np.maximum(areas, 1), hits / np.maximum(union, 1))
    return [ObjectScore(*row) for row in zip(*(c[found].tolist() for c in columns), strict=True)]


def _objects(truth: np.ndarray, objects: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Class and area of every object number, (255,) int64 each; 0 for none.

    The class is the label most of its pixels have that is neither background nor void; its pixels
    of other labels, where the two maps disagree, are not the object's.
    """
    counts = histogram((objects, truth), IGNORE)  # which leaves 255 out
    counts[0] = 0
    counts[:, 0] = 0
    return counts.argmax(1), counts.max(1)


def summarize_sizes(scores: Iterable[ObjectScore]) -> dict[str, dict[str, int | float | None]]:
    """Per size bin: how many objects, their mean IoU and recall, and the share with IoU ≥ 0.5.

    All but the number in percent with two decimals; None where the bin is empty.
    """
    scores = list(scores)
    summary: dict[str, dict[str, int | float | None]] = {}
    start = 0.0
    for name, stop in SIZE_BINS.items():
        inside = [score for score in scores if start <= score.area < stop]
        values = {
            "mIoU": [score.iou for score in inside],
            "recall": [score.recall for score in inside],
            "found": [score.iou >= 0.5 for score in inside],
        }
        means = {k: round(100 * float(np.mean(v)), 2) if v else None for k, v in values.items()}
        summary[name] = {"objects": len(inside), **means}
        start = stop
    return summary


def mask_true_iou(
    mask: np.ndarray, label: int, truth: np.ndarray, objects: np.ndarray | None
) -> float:
    """IoU 0…1 of an (H, W) bool mask with the object of its label that fits best.

    Void pixels do not count. Without an object map the whole region of the label stands for its
    objects. 0 where the image has no such object.
    """
    region = truth == label
    if objects is None:
        regions = [region]
    else:
        labels, _ = _objects(truth, objects)
        regions = [(objects == i) & region for i in np.flatnonzero(labels == label)]
    mask = mask & (truth != IGNORE)
    best = 0.0
    for region in regions:
        union = np.count_nonzero(mask | region)
        best = max(best, np.count_nonzero(mask & region) / union if union else 0.0)
    return best
