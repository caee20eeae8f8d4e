"""What one arm scores on a data set: counts of its images, added up before ratios are taken.

Labels are the data set's: 0 background, i + 1 class i. Percent everywhere.
Shapes: N images, C labels.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from models.presets import GRID_PROMPTS

from ..datasets.base import GroundTruth
from ..files.rle import decode_rle
from .metrics import class_accuracy, class_iou, iou_counts, iou_percent, pixel_accuracy
from .object_metrics import ObjectScore, mask_true_iou, summarize_sizes
from .scores import ImageScores

METRICS = ("mIoU", "boundary_IoU", "edge_mIoU")
LARGE = 512  # labels; a larger confusion matrix is no part of a summary


class ArmScores:
    """Sums of one arm over the images, and what the bootstrap and the plots need of each."""

    def __init__(
        self, labels: Sequence[str], *, ignore: int = 255, background: bool = True
    ) -> None:
        """Of a data set's labels; `background` says whether label 0 is averaged."""
        self.labels, self.ignore = tuple(labels), ignore
        self.first = 0 if background else 1  # label that is averaged
        self.confusion = np.zeros((len(self.labels), len(self.labels)), np.int64)
        self.counts: dict[str, list[np.ndarray]] = {name: [] for name in METRICS}  # N × (2, C)
        self.objects: list[ObjectScore] | None = None  # None: no object maps
        self.rows: list[dict[str, Any]] = []
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.prompts = self.points = self.hits = 0
        self.masks: list[tuple[float, float, bool]] = []  # predicted IoU, true IoU, of SAM 2

    def add(
        self, image_id: str, scores: ImageScores, record: dict[str, Any], truth: GroundTruth
    ) -> None:
        self.confusion += scores.confusion
        self.counts["mIoU"].append(iou_counts(scores.confusion))
        self.counts["edge_mIoU"].append(iou_counts(scores.edges))
        self.counts["boundary_IoU"].append(scores.boundary)
        if scores.objects is not None:
            self.objects = self.objects or []
            self.objects += scores.objects
        for stage, value in record["seconds"].items():
            self.seconds[stage].append(value)
        row: dict[str, Any] = {"id": image_id}
        for name in METRICS:
            row[name] = rounded(_mean(iou_percent(self.counts[name][-1])[self.first :]))
        row["aAcc"] = rounded(pixel_accuracy(scores.confusion))
        row["prompts"] = record.get("prompts")
        row["masks"] = len(record["masks"]) if "masks" in record else None
        self.rows.append(row)
        self._add_masks(record, truth)

    def _add_masks(self, record: dict[str, Any], truth: GroundTruth) -> None:
        self.prompts += record.get("prompts") or 0
        for mask in record.get("masks", ()):
            for x, y in mask["points"]:
                if truth.labels[y, x] != self.ignore:
                    self.points += 1
                    self.hits += bool(truth.labels[y, x] == mask["label"])
            found = decode_rle(mask["segmentation"], truth.labels.shape)
            true_iou = mask_true_iou(found, mask["label"], truth.labels, truth.objects, self.ignore)
            self.masks.append((mask["score"], true_iou, mask["source"] == "sam2"))

    def stacked(self, metric: str) -> np.ndarray:
        """(N, 2, C) intersections and unions per image, of the labels that are averaged."""
        return np.stack(self.counts[metric])[:, :, self.first :]

    def summary(self) -> dict[str, Any]:
        """The arm's entry in the results, without intervals.

        `confusion` is None for more than `LARGE` labels: it is the attribute then.
        """
        per_metric = {name: iou_percent(np.sum(self.counts[name], axis=0)) for name in METRICS}
        accuracy = class_accuracy(self.confusion)
        averaged = per_metric["mIoU"][self.first :]
        result: dict[str, Any] = {
            name: rounded(_mean(values[self.first :])) for name, values in per_metric.items()
        }
        result |= {
            "mAcc": rounded(_mean(accuracy[self.first :])),
            "aAcc": rounded(pixel_accuracy(self.confusion)),
            "classes_averaged": int(np.count_nonzero(~np.isnan(averaged))),
            "per_class": self._by_name(class_iou(self.confusion)),
            "per_class_boundary": self._by_name(per_metric["boundary_IoU"]),
            "per_class_accuracy": self._by_name(accuracy),
            "sizes": None if self.objects is None else summarize_sizes(self.objects),
            "confusion": self.confusion.tolist() if len(self.labels) <= LARGE else None,
        }
        if any(row["prompts"] is not None for row in self.rows):
            result["prompts"] = self._prompts()
        return result

    def _by_name(self, values: np.ndarray) -> dict[str, float | None]:
        return {
            name: rounded(v)
            for name, v in list(zip(self.labels, values, strict=True))[self.first :]
        }

    def _prompts(self) -> dict[str, float | int | None]:
        images, masks = len(self.rows), np.array(self.masks, np.float64).reshape(-1, 3)
        of_sam = masks[masks[:, 2] == 1]
        varies = len(of_sam) > 1 and (of_sam[:, :2].std(axis=0) > 0).all()
        return {
            "per_image": round(self.prompts / images, 4),
            "reduction": round(100 * (1 - self.prompts / images / GRID_PROMPTS), 4),
            "points": self.points,
            "points_on_class": rounded(100 * self.hits / self.points if self.points else math.nan),
            "masks": len(masks),
            "fallbacks": rounded(100 * _mean(1 - masks[:, 2])),
            "predicted_iou": rounded(100 * _mean(of_sam[:, 0])),
            "true_iou": rounded(100 * _mean(of_sam[:, 1])),
            "correlation": rounded(np.corrcoef(of_sam[:, :2].T)[0, 1]) if varies else None,
        }

    def timings(self) -> dict[str, dict[str, float]]:
        """Seconds per stage: median, quartiles, mean."""
        return {
            stage: {
                "median": round(float(np.median(values)), 4),
                "q25": round(float(np.quantile(values, 0.25)), 4),
                "q75": round(float(np.quantile(values, 0.75)), 4),
                "mean": round(float(np.mean(values)), 4),
            }
            for stage, values in self.seconds.items()
        }


def _mean(values: np.ndarray) -> float:
    """Mean of what is no NaN; NaN if nothing is left."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else math.nan


def rounded(value: float) -> float | None:
    """Four decimals; None (JSON has no NaN) where there is no value."""
    return None if math.isnan(value) else round(float(value), 4)
