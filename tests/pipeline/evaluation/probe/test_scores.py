"""Counts of probes' predictions, with answers by hand."""

import numpy as np
import pytest

from pipeline.datasets.base import GroundTruth
from pipeline.evaluation.probe.scores import image_counts, stacked, summarize

VOID = 255


def maps() -> tuple[np.ndarray, np.ndarray]:
    """Truth: 0, but a square of 1 and a void column; the prediction finds half the square."""
    truth = np.zeros((40, 60), np.uint8)
    truth[10:20, 10:20], truth[:, 59] = 1, VOID
    predicted = np.zeros_like(truth)
    predicted[10:20, 10:15] = 1
    return truth, predicted


def test_regions_stand_for_objects():
    truth, predicted = maps()
    found = image_counts(GroundTruth(truth, None), predicted, 2, VOID)
    np.testing.assert_array_equal(found["mIoU"], [[40 * 59 - 100, 50], [40 * 59 - 50, 100]])
    area, iou = found["objects"].T
    np.testing.assert_array_equal(area, [40 * 59 - 100, 100])  # the large one is label 0
    np.testing.assert_allclose(iou, [(40 * 59 - 100) / (40 * 59 - 50), 0.5])


def test_two_regions_of_one_label_are_two():
    truth, predicted = maps()
    truth[30:34, 30:34] = 1
    found = image_counts(GroundTruth(truth, None), predicted, 2, VOID)
    np.testing.assert_array_equal(sorted(found["objects"][:, 0]), [16, 100, 40 * 59 - 116])


def test_objects_of_the_data_set_come_first():
    truth, predicted = maps()
    objects = np.zeros_like(truth)
    objects[10:20, 10:15], objects[10:20, 15:20] = 1, 2
    found = image_counts(GroundTruth(truth, objects), predicted, 2, VOID)
    np.testing.assert_array_equal(found["objects"], [[50, 1], [50, 0]])


def test_summary():
    truth, predicted = maps()
    half = image_counts(GroundTruth(truth, None), predicted, 2, VOID)
    whole = image_counts(GroundTruth(truth, None), np.where(truth == VOID, 0, truth), 2, VOID)
    # Two images, two seeds; the second seed of "a" is perfect.
    arms = {"a": stacked([[half, whole]] * 2), "b": stacked([[half, half]] * 2)}
    assert arms["a"]["mIoU"].shape == (2, 2, 2, 2) and arms["a"]["objects"].shape == (2, 4, 2)
    rows = summarize(arms, "b")
    zero = 100 * 2260 / 2310
    assert rows["b"]["mIoU"]["value"] == pytest.approx((zero + 50) / 2, abs=1e-3)
    assert rows["b"]["mIoU"]["difference"] == [0, 0, 0]
    assert rows["b"]["mIoU"]["spread"] == 0
    assert rows["a"]["mIoU"]["seeds"] == pytest.approx([(zero + 50) / 2, 100], abs=1e-3)
    pooled = (100 * (2260 + 2260) / (2310 + 2260) + 75) / 2
    assert rows["a"]["mIoU"]["value"] == pytest.approx(pooled, abs=1e-3)
    value, low, high = rows["a"]["mIoU"]["difference"]
    assert value == low == high == pytest.approx(pooled - (zero + 50) / 2, abs=1e-3)
    assert rows["a"]["small"] == {"objects": 2, "mIoU": 75.0}
    assert rows["a"]["per_class"][1] == 75.0
