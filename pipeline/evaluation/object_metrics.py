"""How well single objects are segmented, small ones apart from large ones.

Shapes: H×W pixels; C labels, O the highest number of an object. Truth: labels, 0 background,
`ignore` (255 unless said) void. Object map as in VOC's SegmentationObject: a number per object,
0 background, `ignore` void. All maps are uint8 or uint16. Areas count pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np

from .metrics import IGNORE

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
    truth: np.ndarray, predicted: np.ndarray, objects: np.ndarray, ignore: int = IGNORE
) -> list[ObjectScore]:
    """One score per object with a class, by object number; all maps (H, W).

    A prediction names classes, not objects. What stands for an object is every 8-connected
    component of its class's prediction that shares a pixel with it, less the void pixels and the
    others that truly are of that class: merging neighbours of one class costs nothing, spilling
    does.
    """
    labels, areas = _objects(truth, objects, ignore)
    hits, union = np.zeros_like(areas), areas.copy()
    for label in np.unique(labels[labels > 0]):
        mask = predicted == label
        count, components = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
        mask &= truth != ignore
        members = np.flatnonzero(labels == label)
        # Row 0: spilled pixels; one row per object; the last: of the class, but of no such object.
        row_of = np.full(int(objects.max()) + 1, len(members) + 1)
        row_of[members] = np.arange(1, len(members) + 1)
        rows = row_of[objects[mask]] * (truth[mask] == label)
        cells = rows * count + components[mask]
        shared = np.bincount(cells, minlength=(len(members) + 2) * count).reshape(-1, count)
        spilled, inside = shared[0], shared[1:-1]
        hits[members] = inside.sum(1)
        union[members] += (inside > 0) @ spilled
    found = np.flatnonzero(labels)
    columns = (labels, areas, hits / np.maximum(areas, 1), hits / np.maximum(union, 1))
    return [ObjectScore(*row) for row in zip(*(c[found].tolist() for c in columns), strict=True)]


def _objects(truth: np.ndarray, objects: np.ndarray, ignore: int) -> tuple[np.ndarray, np.ndarray]:
    """Class and area of every object number, (O + 1,) int64 each; 0 for none.

    The class is the label most of its pixels have that is neither background nor void; its pixels
    of other labels, where the two maps disagree, are not the object's.
    """
    known = (objects > 0) & (objects != ignore) & (truth > 0) & (truth != ignore)
    numbers, labels = objects[known].astype(np.int64), truth[known]
    rows, columns = int(numbers.max(initial=0)) + 1, int(labels.max(initial=0)) + 1
    counts = np.bincount(numbers * columns + labels, minlength=rows * columns)
    counts = counts.reshape(rows, columns)  # pixels by object and label
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
    mask: np.ndarray,
    label: int,
    truth: np.ndarray,
    objects: np.ndarray | None,
    ignore: int = IGNORE,
) -> float:
    """IoU 0…1 of an (H, W) bool mask with the object of its label that fits best.

    Void pixels do not count. Without an object map the whole region of the label stands for its
    objects. 0 where the image has no such object.
    """
    region = truth == label
    if objects is None:
        regions = [region]
    else:
        labels, _ = _objects(truth, objects, ignore)
        regions = [(objects == i) & region for i in np.flatnonzero(labels == label)]
    mask = mask & (truth != ignore)
    best = 0.0
    for region in regions:
        union = np.count_nonzero(mask | region)
        best = max(best, np.count_nonzero(mask & region) / union if union else 0.0)
    return best
