"""How well label maps agree with the truth.

Shapes: C labels 0…C-1, H×W pixels. One more label, `ignore` (255 unless said), is void in a truth:
nobody knows, or it does not count. It is no class: a number from C on, a negative one, or 0 where
the classes begin at 1. Sums over images come first, ratios last, as mmsegmentation and VOC's own
code do it.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

IGNORE = 255
_EXACT = 1 << 24  # OpenCV hands counts over as float32, exact up to here


def confusion(
    truth: np.ndarray, predicted: np.ndarray, count: int, ignore: int = IGNORE
) -> np.ndarray:
    """(C, C) int64: pixels by their true (row) and predicted (column) label, void ones left out.

    Arrays of any equal shape. ValueError for labels that are neither 0…count-1 nor true void.
    """
    return histogram(checked_labels(truth, predicted, count, ignore), count)


def checked_labels(
    truth: np.ndarray, predicted: np.ndarray, count: int, ignore: int = IGNORE
) -> tuple[np.ndarray, np.ndarray]:
    """Both as uint8 or uint16, in which true void has become the label `count`.

    ValueError unless shapes agree and all labels are 0…count-1 (or true void).
    """
    largest = np.iinfo(np.uint16).max
    if not 1 <= count <= largest:
        raise ValueError(f"There are {count} labels; expected 1 to {largest}.")
    if 0 < ignore < count:
        raise ValueError(
            f"{ignore} is void and one of the {count} labels; give void another number (ignore)."
        )
    if truth.shape != predicted.shape:
        raise ValueError(
            f"The truth has shape {truth.shape}, the prediction {predicted.shape}; "
            "save predictions in the size of the original image."
        )
    void = truth == ignore
    for name, labels in (("truth", truth), ("prediction", predicted)):
        if labels.dtype.kind not in "bui":
            raise ValueError(f"The {name} is of type {labels.dtype}; expected integer labels.")
        wrong = labels >= count
        if labels.dtype.kind == "i":
            wrong |= labels < 0
        if name == "truth":
            wrong &= ~void
        if wrong.any():
            also = f" or {ignore} (void)" if name == "truth" else ""
            raise ValueError(
                f"The {name} holds label {labels[wrong].flat[0]}; expected 0…{count - 1}{also}."
            )
    kind = np.min_scalar_type(count)
    return _put(truth.astype(kind, copy=False), void, count), predicted.astype(kind, copy=False)


def histogram(
    maps: tuple[np.ndarray, ...], bins: int, mask: np.ndarray | None = None
) -> np.ndarray:
    """How often each tuple of values 0…bins-1 occurs in equal shapes of uint8 or uint16, int64.

    One axis of `bins` per array. Tuples with a larger value are left out, and so are elements
    where the bool mask is false. Several times faster than `np.bincount`.
    """
    columns = [array.reshape(-1, 1) for array in maps]
    chosen = None if mask is None else mask.reshape(-1, 1).view(np.uint8)
    total = np.zeros((bins,) * len(maps), np.int64)
    for start in range(0, len(columns[0]), _EXACT):
        rows = slice(start, start + _EXACT)
        part = cv2.calcHist(
            [column[rows] for column in columns],
            list(range(len(maps))),
            None if chosen is None else chosen[rows],
            [bins] * len(maps),
            [0, bins] * len(maps),
        )
        total += part.reshape(total.shape).astype(np.int64)
    return total


def iou_counts(matrix: np.ndarray) -> np.ndarray:
    """(2, C): intersection and union of every label of a (C, C) confusion matrix."""
    both = matrix.diagonal()
    return np.stack([both, matrix.sum(0) + matrix.sum(1) - both])


def iou_percent(counts: np.ndarray) -> np.ndarray:
    """(…, C) IoU in percent of (…, 2, C) intersections and unions; NaN where a union is 0."""
    return _percent(counts[..., 0, :], counts[..., 1, :])


def class_iou(matrix: np.ndarray) -> np.ndarray:
    """IoU in percent per class of a (C, C) confusion matrix; NaN where a class never occurs."""
    return iou_percent(iou_counts(matrix))


def mean_iou(matrix: np.ndarray) -> float:
    """Mean IoU in percent over the classes that occur at all, as mmsegmentation's mIoU."""
    return float(np.nanmean(class_iou(matrix)))


def class_accuracy(matrix: np.ndarray) -> np.ndarray:
    """Percent of each class's true pixels that got it, (C,); NaN where it has no true pixel."""
    return _percent(matrix.diagonal(), matrix.sum(1))


def pixel_accuracy(matrix: np.ndarray) -> float:
    """Percent of all labelled pixels that got their class: aAcc; NaN without any."""
    return float(_percent(matrix.trace(), matrix.sum()))


def _percent(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(100.0 * part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)


def edge_band(labels: np.ndarray, radius: int = 3) -> np.ndarray:
    """(H, W) bool: pixels with another label at most `radius` pixels away (in a square)."""
    if labels.dtype == bool:
        labels = labels.view(np.uint8)
    elif labels.dtype not in (np.uint8, np.uint16, np.int16):
        labels = labels.astype(np.float64)  # OpenCV's morphology knows no int64
    kernel = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    return cv2.dilate(labels, kernel) != cv2.erode(labels, kernel)


def boundary_counts(
    truth: np.ndarray, predicted: np.ndarray, count: int, ignore: int = IGNORE
) -> np.ndarray:
    """(2, C) int64: intersection and union of the labels' boundary regions, for Boundary IoU.

    Cheng et al., "Boundary IoU" (CVPR 2021): of a mask only the pixels within a distance of 2 % of
    the image's diagonal from its contour count. As in the authors' code, distance is in squares
    and the image's border is contour. Void pixels leave both masks before their contours are
    taken, so that being right on all labelled pixels is 100 %.
    """
    truth, predicted = checked_labels(truth, predicted, count, ignore)
    predicted = _put(predicted, truth == count, count)
    distance = max(1, round(0.02 * math.hypot(*truth.shape)))
    first, second = (_boundary(labels, distance, count) for labels in (truth, predicted))
    return iou_counts(histogram((first, second), count + 1))[:, :count]


def _boundary(labels: np.ndarray, distance: int, other: int) -> np.ndarray:
    """(H, W): the labels of pixels within `distance` of their region's contour, else `other`."""
    band = edge_band(labels, distance)
    band[:distance] = band[-distance:] = True
    band[:, :distance] = band[:, -distance:] = True
    return _put(labels, ~band, other)


def _put(labels: np.ndarray, mask: np.ndarray, label: int) -> np.ndarray:
    """The labels with another one where a bool mask is true; faster than `np.where`."""
    return labels * ~mask + mask * labels.dtype.type(label)
