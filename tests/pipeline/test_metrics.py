"""Confusion matrix, mean IoU and edge band by hand."""

import numpy as np
import pytest

from pipeline.metrics import class_iou, confusion, edge_band, mean_iou


def test_confusion_and_mean_iou_by_hand():
    truth = np.array([[0, 0, 1], [1, 1, 2]])
    predicted = np.array([[0, 1, 1], [1, 0, 2]])
    matrix = confusion(truth, predicted, 4)
    assert matrix.tolist() == [[1, 1, 0, 0], [1, 2, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    # 0: 1 of 3; 1: 2 of 4; 2: 1 of 1; 3 never occurs
    assert class_iou(matrix)[:3].tolist() == pytest.approx([100 / 3, 50, 100])
    assert np.isnan(class_iou(matrix)[3])
    assert mean_iou(matrix) == pytest.approx((100 / 3 + 50 + 100) / 3)


def test_matrices_of_images_add_up():
    rng = np.random.default_rng(0)
    pairs = [(rng.integers(0, 3, (5, 7)), rng.integers(0, 3, (5, 7))) for _ in range(3)]
    total = sum(confusion(t, p, 3) for t, p in pairs)
    joined = confusion(*(np.concatenate(a) for a in zip(*pairs, strict=True)), 3)
    assert (total == joined).all()


def test_edge_band_reaches_the_radius_on_both_sides():
    labels = np.zeros((3, 12), int)
    labels[:, 6:] = 7
    assert edge_band(labels, radius=2)[1].nonzero()[0].tolist() == [4, 5, 6, 7]
    assert not edge_band(np.zeros((4, 5), int)).any()
