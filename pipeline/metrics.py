"""How well label maps agree with the truth.

Shapes: K classes, H×W pixels.
"""

from __future__ import annotations

import cv2
import numpy as np


def confusion(truth: np.ndarray, predicted: np.ndarray, count: int) -> np.ndarray:
    """(K, K) int64: pixels by their true (row) and predicted (column) class 0…K-1."""
    pairs = (truth.astype(np.int64) * count + predicted).ravel()
    return np.bincount(pairs, minlength=count * count).reshape(count, count)


def class_iou(matrix: np.ndarray) -> np.ndarray:
    """IoU in percent per class of a (K, K) confusion matrix; NaN where a class never occurs."""
    both = matrix.diagonal()
    union = matrix.sum(0) + matrix.sum(1) - both
    return np.divide(100.0 * both, union, out=np.full(len(matrix), np.nan), where=union > 0)


def mean_iou(matrix: np.ndarray) -> float:
    """Mean IoU in percent over the classes that occur at all, as mmsegmentation's mIoU."""
    return float(np.nanmean(class_iou(matrix)))


def edge_band(labels: np.ndarray, radius: int = 3) -> np.ndarray:
    """(H, W) bool: pixels with another label at most `radius` pixels away (in a square)."""
    kernel = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    labels = labels.astype(np.float32)  # OpenCV's morphology knows no int64
    return cv2.dilate(labels, kernel) != cv2.erode(labels, kernel)
