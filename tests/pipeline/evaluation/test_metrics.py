"""Scores of label maps: by hand, and against plain implementations of their definitions."""

import math

import cv2
import numpy as np
import pytest

from pipeline.evaluation import metrics
from pipeline.evaluation.metrics import (
    IGNORE,
    boundary_counts,
    class_accuracy,
    class_iou,
    confusion,
    edge_band,
    histogram,
    iou_counts,
    iou_percent,
    mean_iou,
    pixel_accuracy,
)


def blobs(rng, size, count, void=True):
    """A label map of smooth regions, some void, some without a contour nearby."""
    noise = rng.normal(size=(count + void, *size)).astype(np.float32)
    labels = np.stack([cv2.GaussianBlur(n, (0, 0), 4) for n in noise]).argmax(0).astype(np.uint8)
    labels[labels == count] = IGNORE
    return labels


def test_confusion_and_mean_iou_by_hand():
    truth = np.array([[0, 0, 1], [1, 1, 2]])
    predicted = np.array([[0, 1, 1], [1, 0, 2]])
    matrix = confusion(truth, predicted, 4)
    assert matrix.tolist() == [[1, 1, 0, 0], [1, 2, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert matrix.dtype == np.int64
    # 0: 1 of 3; 1: 2 of 4; 2: 1 of 1; 3 never occurs
    assert class_iou(matrix)[:3].tolist() == pytest.approx([100 / 3, 50, 100])
    assert np.isnan(class_iou(matrix)[3])
    assert mean_iou(matrix) == pytest.approx((100 / 3 + 50 + 100) / 3)


def test_accuracies_by_hand():
    matrix = np.array([[6, 2, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 10, 0]])
    assert class_accuracy(matrix)[[0, 1, 3]].tolist() == [75, 50, 0]
    assert np.isnan(class_accuracy(matrix)[2])  # predicted, but never true
    assert np.nanmean(class_accuracy(matrix)) == pytest.approx(125 / 3)
    assert pixel_accuracy(matrix) == 35
    assert math.isnan(pixel_accuracy(np.zeros((2, 2), int)))
    # Wrongly predicted labels count in the mean IoU, as those of mmsegmentation do.
    assert mean_iou(matrix) == pytest.approx((600 / 9 + 25 + 0 + 0) / 4)


def test_void_does_not_count():
    truth = np.array([[0, 255, 1], [255, 1, 1]], np.uint8)
    predicted = np.array([[0, 2, 0], [1, 1, 1]], np.uint8)
    assert confusion(truth, predicted, 3).tolist() == [[1, 0, 0], [1, 2, 0], [0, 0, 0]]
    assert confusion(np.full((2, 3), 255), predicted, 3).sum() == 0


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16, np.int32, np.int64])
def test_confusion_takes_every_integer_type_and_shape(kind):
    rng = np.random.default_rng(1)
    truth = blobs(rng, (31, 47), 5).astype(kind)
    predicted = blobs(rng, (31, 47), 5, void=False).astype(kind)
    expected = np.zeros((5, 5), int)
    for t, p in zip(truth.ravel(), predicted.ravel(), strict=True):
        if t != 255:
            expected[t, p] += 1
    assert (confusion(truth, predicted, 5) == expected).all()
    chosen = rng.random(truth.shape) < 0.3
    parts = [confusion(truth[m], predicted[m], 5) for m in (chosen, ~chosen)]  # 1-D
    assert (sum(parts) == expected).all()
    turned = confusion(truth.T, predicted.T, 5)  # not contiguous
    assert (turned == expected).all()


def test_confusion_of_no_pixels_and_of_bools():
    assert confusion(np.zeros(0, np.uint8), np.zeros(0, np.uint8), 2).tolist() == [[0, 0], [0, 0]]
    both = confusion(np.array([True, False]), np.array([True, True]), 2)
    assert both.tolist() == [[0, 1], [0, 1]]


@pytest.mark.parametrize(
    ("truth", "predicted", "count", "message"),
    [
        ([0, 1], [0, 3], 3, r"prediction holds label 3; expected 0…2\."),
        ([0, 1], [0, 255], 3, r"prediction holds label 255; expected 0…2\."),
        ([0, 255], [0, 255], 3, "prediction holds label 255"),
        ([0, 3], [0, 1], 3, r"truth holds label 3; expected 0…2 or 255 \(void\)"),
        ([0, 511], [0, 1], 3, "truth holds label 511"),
        ([0, -1], [0, 1], 3, "truth holds label -1"),
        ([0, 1], [-1, 1], 3, "prediction holds label -1"),
        ([0.0, 1.0], [0, 1], 3, "truth is of type float64"),
        ([0, 1], [0, 1, 2], 3, r"shape \(2,\), the prediction \(3,\)"),
        ([0, 1], [0, 1], 256, "255 is void and one of the 256 labels"),
        ([0, 1], [0, 1], 65536, "65536 labels; expected 1 to 65535"),
        ([0, 1], [0, 1], 0, "0 labels"),
    ],
)
def test_confusion_names_what_is_wrong(truth, predicted, count, message):
    with pytest.raises(ValueError, match=message):
        confusion(np.array(truth), np.array(predicted), count)


def test_histograms_stay_exact_beyond_float32(monkeypatch):
    monkeypatch.setattr(metrics, "_EXACT", 10)  # pixels at a time
    rng = np.random.default_rng(2)
    first, second = (rng.integers(0, 6, (7, 9), dtype=np.uint8) for _ in range(2))
    mask = rng.random((7, 9)) < 0.5
    expected = np.zeros((4, 4), int)
    for a, b, m in zip(first.flat, second.flat, mask.flat, strict=True):
        if m and a < 4 and b < 4:
            expected[a, b] += 1
    assert (histogram((first, second), 4, mask) == expected).all()
    assert histogram((first,), 6).tolist() == np.bincount(first.ravel(), minlength=6).tolist()


def test_mean_iou_of_a_data_set_against_sets_of_pixels():
    """As mmsegmentation and torchmetrics define it: sums over images first, 255 left out."""
    rng = np.random.default_rng(3)
    sizes = [(23, 31), (40, 17), (12, 50)]
    images = [(blobs(rng, s, 6), blobs(rng, s, 6, void=False)) for s in sizes]
    ious, accuracies = [], []
    for label in range(9):
        true, found = set(), set()
        for number, (truth, predicted) in enumerate(images):
            for place in np.ndindex(truth.shape):
                if truth[place] != 255:
                    true |= {(number, place)} if truth[place] == label else set()
                    found |= {(number, place)} if predicted[place] == label else set()
        if true | found:
            ious.append(100 * len(true & found) / len(true | found))
        if true:
            accuracies.append(100 * len(true & found) / len(true))
    matrix = sum(confusion(t, p, 9) for t, p in images)
    assert mean_iou(matrix) == pytest.approx(sum(ious) / len(ious))
    assert np.nanmean(class_accuracy(matrix)) == pytest.approx(sum(accuracies) / len(accuracies))
    assert len(ious) == 6


def test_iou_from_counts_of_many_images():
    counts = np.array([[[1, 0, 3], [2, 0, 3]], [[0, 5, 0], [4, 20, 0]]])  # (2, 2, 3)
    expected = np.array([[50, np.nan, 100], [0, 25, np.nan]])
    np.testing.assert_array_equal(iou_percent(counts), expected)
    matrix = np.array([[6, 2], [1, 1]])
    assert iou_counts(matrix).tolist() == [[6, 1], [9, 4]]
    np.testing.assert_array_equal(iou_percent(iou_counts(matrix)), class_iou(matrix))


def test_edge_band_reaches_the_radius_on_both_sides():
    labels = np.zeros((3, 12), int)
    labels[:, 6:] = 7
    assert edge_band(labels, radius=2)[1].nonzero()[0].tolist() == [4, 5, 6, 7]
    assert not edge_band(np.zeros((4, 5), int)).any()


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int16, np.uint16, np.int64, np.float32])
def test_edge_band_of_every_type_against_plain_windows(kind):
    labels = blobs(np.random.default_rng(4), (29, 43), 4).astype(kind)
    for radius in (1, 3):
        expected = np.zeros(labels.shape, bool)
        for y, x in np.ndindex(labels.shape):
            rows = slice(max(0, y - radius), y + radius + 1)
            columns = slice(max(0, x - radius), x + radius + 1)
            expected[y, x] = (labels[rows, columns] != labels[y, x]).any()
        assert (edge_band(labels, radius) == expected).all()
        assert 0 < expected.sum() < expected.size


def plain_boundary_counts(truth, predicted, count):
    """Mask by mask, as the paper's authors take boundaries."""
    height, width = truth.shape
    distance = max(1, round(0.02 * math.sqrt(height**2 + width**2)))
    counts = np.zeros((2, count), int)
    for label in range(count):
        regions = []
        for labels in (truth, predicted):
            mask = ((labels == label) & (truth != 255)).astype(np.uint8)
            padded = np.pad(mask, 1)
            inner = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=distance)
            regions.append((mask - inner[1:-1, 1:-1]).astype(bool))
        counts[:, label] = (regions[0] & regions[1]).sum(), (regions[0] | regions[1]).sum()
    return counts


@pytest.mark.parametrize("size", [(60, 90), (110, 145), (200, 30), (5, 4), (1, 1)])
def test_boundary_counts_against_the_plain_ones(size):
    rng = np.random.default_rng(5)
    for void in (False, True):
        truth, predicted = blobs(rng, size, 4, void), blobs(rng, size, 4, void=False)
        predicted[: size[0] // 2] = np.minimum(truth, 3)[: size[0] // 2]  # half of it good
        counts = boundary_counts(truth, predicted, 6)
        assert counts.dtype == np.int64
        assert counts.tolist() == plain_boundary_counts(truth, predicted, 6).tolist()


def test_boundary_counts_by_hand():
    # The diagonal of 30×40 is 50: one pixel deep. Two squares of 10×10, the second one to the right
    # by one pixel, whose outlines of 36 pixels share 9 + 9 in the rows and none in the columns.
    truth, predicted = np.zeros((2, 30, 40), np.uint8)
    truth[10:20, 10:20] = 1
    predicted[10:20, 11:21] = 1
    shared, either = boundary_counts(truth, predicted, 2)[:, 1]
    assert (shared, either) == (18, 72 - 18)


def test_boundary_of_the_image_counts():
    whole = np.zeros((30, 40), np.uint8)
    assert boundary_counts(whole, whole, 1).tolist() == [[2 * 40 + 2 * 28], [2 * 40 + 2 * 28]]


def test_thick_boundaries_see_what_iou_hides():
    truth = np.zeros((100, 140), np.uint8)
    truth[20:80, 30:110] = 1
    predicted = np.zeros_like(truth)
    predicted[22:78, 32:108] = 1
    boundary = iou_percent(boundary_counts(truth, predicted, 2))[1]
    assert boundary < 50 < 85 < class_iou(confusion(truth, predicted, 2))[1]


def test_perfect_predictions_get_100_whatever_they_say_in_the_void():
    rng = np.random.default_rng(6)
    truth = blobs(rng, (70, 110), 5)
    predicted = np.where(truth == 255, rng.integers(0, 5, truth.shape), truth).astype(np.uint8)
    matrix = confusion(truth, predicted, 7)
    assert mean_iou(matrix) == np.nanmean(class_accuracy(matrix)) == pixel_accuracy(matrix) == 100
    boundary = iou_percent(boundary_counts(truth, predicted, 7))
    assert boundary[:5].tolist() == [100] * 5 and np.isnan(boundary[5:]).all()


def test_all_background():
    truth = np.zeros((20, 30), np.uint8)
    truth[:5] = 3
    truth[5:7] = 255
    matrix = confusion(truth, np.zeros_like(truth), 4)
    # 390 background, 150 of label 3, 60 void
    assert class_iou(matrix)[[0, 3]].tolist() == pytest.approx([100 * 390 / 540, 0])
    assert mean_iou(matrix) == pytest.approx(50 * 390 / 540)
    assert np.nanmean(class_accuracy(matrix)) == 50
    assert pixel_accuracy(matrix) == pytest.approx(100 * 390 / 540)
    assert iou_percent(boundary_counts(truth, np.zeros_like(truth), 4))[3] == 0


def test_boundary_counts_refuse_bad_labels():
    good = np.zeros((4, 6), np.uint8)
    with pytest.raises(ValueError, match="prediction holds label 255"):
        boundary_counts(good, np.full((4, 6), 255, np.uint8), 21)
