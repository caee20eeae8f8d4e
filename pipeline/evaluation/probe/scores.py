"""What probes score: counts per image, pooled over seeds, and what is told of them.

Shapes: S seeds, N images, C labels, H×W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from ...datasets.base import GroundTruth
from ..arm_scores import METRICS, rounded
from ..bootstrap import Interval, paired_bootstrap
from ..metrics import iou_counts, iou_percent
from ..object_metrics import ObjectScore, score_objects
from ..scores import score_image

Counts = dict[str, np.ndarray]  # of one image and one probe
SMALL = 32**2  # px: COCO's small objects end there


def image_counts(truth: GroundTruth, predicted: np.ndarray, labels: int, ignore: int) -> Counts:
    """Counts of one prediction (H, W).

    Returns:
        (2, C) int64 by name of `METRICS`; "objects", (n, 2) float: area in pixels and IoU 0…1 of
        the objects, or of the connected regions of each label where objects cannot be told apart.
    """
    found = score_image(truth.labels, predicted, truth.objects, labels, ignore)
    objects = found.objects
    if objects is None:
        objects = _score_regions(truth.labels, predicted, ignore)
    return {
        "mIoU": iou_counts(found.confusion),
        "boundary_IoU": found.boundary,
        "edge_mIoU": iou_counts(found.edges),
        "objects": np.array([(o.area, o.iou) for o in objects], np.float64).reshape(-1, 2),
    }


def _score_regions(truth: np.ndarray, predicted: np.ndarray, ignore: int) -> list[ObjectScore]:
    """`score_objects` of the truth's 8-connected regions of every label, 0 included."""
    shifted = truth.astype(np.uint16) + 1
    void = np.iinfo(np.uint16).max
    shifted[truth == ignore] = void
    regions = np.zeros(truth.shape, np.uint16)
    number = 0
    for label in np.unique(shifted[shifted != void]):
        count, parts = cv2.connectedComponents((shifted == label).view(np.uint8), connectivity=8)
        regions += np.where(parts > 0, parts + number, 0).astype(np.uint16)
        number += count - 1
    return score_objects(shifted, predicted.astype(np.uint16) + 1, regions, void)


def stacked(images: Sequence[Sequence[Counts]]) -> dict[str, np.ndarray]:
    """(S, N, 2, C) by metric, and objects (S, n, 2), of the counts [image][seed]."""
    seeds = list(zip(*images, strict=True))
    counts = {m: np.array([[image[m] for image in seed] for seed in seeds]) for m in METRICS}
    objects = [np.concatenate([image["objects"] for image in seed]) for seed in seeds]
    return counts | {"objects": np.array(objects)}


def summarize(arms: Mapping[str, Mapping[str, np.ndarray]], baseline: str) -> dict[str, Any]:
    """Of every arm (`stacked`): metrics in percent, and their differences to the baseline.

    A metric is that of the counts of all seeds added, `spread` the standard deviation of the
    seeds' own. Intervals are 95 %, of a paired bootstrap over images, every image with all seeds.
    """
    rows: dict[str, Any] = {arm: {"small": _small(found)} for arm, found in arms.items()}
    for metric in METRICS:
        pooled = {arm: found[metric].sum(0) for arm, found in arms.items()}
        for arm, counts in pooled.items():
            pair = {baseline: pooled[baseline], arm: counts}  # an arm's alone: all pairs are many
            result = paired_bootstrap(pair)
            gain = result.differences.get(f"{arm} - {baseline}", Interval(0.0, 0.0, 0.0))
            alone = [np.nanmean(iou_percent(seed.sum(0))) for seed in arms[arm][metric]]
            rows[arm][metric] = {
                "value": rounded(result.arms[arm].value),
                "spread": rounded(float(np.std(alone, ddof=1)) if len(alone) > 1 else np.nan),
                "seeds": [rounded(float(value)) for value in alone],
                "difference": [rounded(value) for value in gain],
            }
    for arm, found in arms.items():
        per_class = iou_percent(found["mIoU"].sum((0, 1)))
        rows[arm]["per_class"] = [rounded(float(value)) for value in per_class]
    return rows


def _small(found: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Mean IoU in percent of small objects, all seeds, and how many there are."""
    inside = found["objects"][0, :, 0] < SMALL
    values = found["objects"][:, inside, 1]
    return {
        "objects": int(inside.sum()),
        "mIoU": rounded(100 * float(values.mean())) if values.size else None,
    }
