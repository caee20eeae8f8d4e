"""What one arm scores, against numbers worked out by hand."""

import json
import math

import numpy as np
import pytest

from pipeline.datasets.base import GroundTruth
from pipeline.datasets.voc import IGNORE, LABELS
from pipeline.evaluation.arm_scores import ArmScores, rounded
from pipeline.evaluation.scores import score_image
from pipeline.result import encode_rle

from ..datasets.voc_folders import blocks

SIZE = (20, 30)
HALF = blocks(SIZE, (12, 0, 15, 20, 30))  # a dog on the right half
NOTHING = np.zeros(SIZE, np.uint8)


def add(scores, name, truth, predicted, objects, record) -> None:
    found = score_image(truth, predicted, objects, len(LABELS))
    scores.add(name, found, record, GroundTruth(truth, objects))


def scored(*pairs, first=0, objects=None) -> ArmScores:
    """One image per pair of truth and prediction."""
    scores = ArmScores(LABELS, background=not first)
    for number, (truth, predicted) in enumerate(pairs):
        record = {"seconds": {"clip": float(number)}}
        add(scores, str(number), truth, predicted, objects, record)
    return scores


def test_a_perfect_arm():
    summary = scored((HALF, HALF), (NOTHING, NOTHING), objects=HALF // 12).summary()
    for metric in ("mIoU", "boundary_IoU", "edge_mIoU", "mAcc", "aAcc"):
        assert summary[metric] == 100
    classes = dict.fromkeys(LABELS) | {"background": 100, "dog": 100}
    assert summary["per_class"] == classes == summary["per_class_accuracy"]
    assert summary["per_class_boundary"] == classes
    assert summary["confusion"][0][0] == 900 and summary["confusion"][12][12] == 300
    assert np.sum(summary["confusion"]) == 1200
    assert summary["sizes"]["100 px² to 32²"]["mIoU"] == 100  # the dog's 300 px²
    assert "prompts" not in summary
    json.dumps(summary, allow_nan=False)


def test_an_arm_that_sees_nothing():
    summary = scored((HALF, NOTHING)).summary()
    assert summary["per_class"]["background"] == 50 and summary["per_class"]["dog"] == 0
    assert summary["mIoU"] == 25 and summary["mAcc"] == 50 and summary["aAcc"] == 50
    # The outer ring of the prediction has 96 pixels; the background's own outline 48 of them and
    # the 18 beside the dog.
    assert summary["boundary_IoU"] == rounded(100 * 48 / (96 + 66 - 48) / 2)
    # Three columns on either side of the dog's edge.
    assert summary["edge_mIoU"] == 25
    assert summary["sizes"] is None


def test_the_mean_is_not_that_of_images():
    large, small = np.zeros((40, 60), np.uint8), np.zeros((20, 10), np.uint8)
    large[:, 30:], small[10:] = 12, 12
    scores = scored((small, small), (large, np.zeros_like(large)))
    assert [row["mIoU"] for row in scores.rows] == [100, 25]
    # Background: 100 + 1200 of 100 + 2400 pixels; dog: 100 of 100 + 1200.
    background, dog = 100 * 1300 / 2500, 100 * 100 / 1300
    assert scores.summary()["mIoU"] == rounded((background + dog) / 2) == 29.8462
    assert scores.summary()["aAcc"] == rounded(100 * 1400 / 2600)


def test_void_does_not_count():
    truth = HALF.copy()
    truth[5:9, 10:20] = IGNORE
    predicted = np.where(truth == IGNORE, np.uint8(7), HALF)
    assert not np.array_equal(predicted, HALF)
    summary = scored((truth, predicted)).summary()
    assert summary["mIoU"] == summary["boundary_IoU"] == summary["edge_mIoU"] == 100
    assert summary["per_class"]["car"] is None
    only_void = np.full(SIZE, IGNORE, np.uint8)
    scores = scored((only_void, predicted), (truth, predicted))
    assert scores.rows[0]["mIoU"] is None and scores.rows[0]["aAcc"] is None
    assert scores.summary()["mIoU"] == 100


def test_without_background():
    truth = np.where(HALF == 0, np.uint8(IGNORE), HALF)
    spilled = np.full(SIZE, 12, np.uint8)
    spilled[:, :5] = 3
    half_found = blocks(SIZE, (12, 0, 15, 10, 30))  # and 0 for the rest of the dog
    for predicted, expected in ((spilled, 100), (half_found, 50), (NOTHING, 0)):
        scores = scored((truth, predicted), first=1)
        summary = scores.summary()
        assert summary["mIoU"] == summary["mAcc"] == summary["aAcc"] == expected
        assert "background" not in summary["per_class"] and summary["per_class"]["dog"] == expected
        assert scores.rows[0]["mIoU"] == expected
        assert scores.stacked("mIoU").shape == (1, 2, 20)
    other = np.where(HALF == 12, np.uint8(3), 0).astype(np.uint8)  # a bird where the dog is
    assert scored((truth, other), first=1).summary()["mIoU"] == 0


def test_stacked_counts():
    scores = scored((HALF, HALF), (HALF, NOTHING))
    counts = scores.stacked("mIoU")
    assert counts.shape == (2, 2, 21)
    assert counts[:, :, 0].tolist() == [[300, 300], [300, 600]]
    assert counts[:, :, 12].tolist() == [[300, 300], [0, 300]]


def mask(label, score, source, where, *points) -> dict:
    return {
        "label": label, "score": score, "source": source, "points": [list(p) for p in points],
        "segmentation": encode_rle(where.astype(bool)),
    }  # fmt: skip


@pytest.fixture
def prompted() -> ArmScores:
    """Two images: a dog on the right with void in a corner, and nothing."""
    truth = HALF.copy()
    truth[:4, :4] = IGNORE
    dog = HALF == 12
    scores = ArmScores(LABELS)
    masks = [
        mask(12, 0.4, "sam2", dog, (20, 3), (15, 0), (14, 0)),  # IoU 1; two clicks of three
        mask(12, 0.6, "sam2", blocks(SIZE, (1, 0, 15, 10, 30)), (3, 3)),  # IoU 1/2; on void
        mask(10, 0.2, "sam2", dog, (20, 10)),  # IoU 0: there is no cow
        mask(12, 0.9, "region", dog, (29, 19)),  # SAM 2 was not trusted
    ]
    record = {"seconds": {}, "prompts": 7, "masks": masks}
    scores.add(
        "a", score_image(truth, truth % 255, None, len(LABELS)), record, GroundTruth(truth, None)
    )
    record = {"seconds": {}, "prompts": 0, "masks": []}
    scores.add(
        "b", score_image(NOTHING, NOTHING, None, len(LABELS)), record, GroundTruth(NOTHING, None)
    )
    return scores


def test_prompts(prompted):
    assert prompted.summary()["prompts"] == {
        "per_image": 3.5,
        "reduction": round(100 * (1 - 3.5 / 1024), 4),
        "points": 5,  # without the one on void
        "points_on_class": 60,
        "masks": 4,
        "fallbacks": 25,
        "predicted_iou": 40,  # of SAM 2's own three
        "true_iou": 50,
        "correlation": 0.5,  # of (0.4, 1), (0.6, 0.5), (0.2, 0)
    }
    assert [(row["prompts"], row["masks"]) for row in prompted.rows] == [(7, 4), (0, 0)]


def test_objects_decide_the_true_iou():
    objects = blocks(SIZE, (1, 0, 15, 10, 30), (2, 10, 15, 20, 30))  # two dogs
    record = {
        "seconds": {}, "prompts": 2,
        "masks": [
            mask(12, 0.8, "sam2", objects == 1, (20, 3)),
            mask(12, 0.8, "sam2", HALF == 12, (20, 3)),
        ],
    }  # fmt: skip
    scores = ArmScores(LABELS)
    scores.add(
        "a", score_image(HALF, HALF, objects, len(LABELS)), record, GroundTruth(HALF, objects)
    )
    prompts = scores.summary()["prompts"]
    assert prompts["true_iou"] == 75 and prompts["predicted_iou"] == 80
    assert prompts["correlation"] is None  # SAM 2 trusts both alike


def test_no_prompts_at_all():
    scores = ArmScores(LABELS)
    record = {"seconds": {}, "prompts": 0, "masks": []}
    add(scores, "a", HALF, NOTHING, None, record)
    numbers = scores.summary()["prompts"]
    assert numbers["per_image"] == numbers["points"] == numbers["masks"] == 0
    assert numbers["reduction"] == 100
    for name in ("points_on_class", "fallbacks", "predicted_iou", "true_iou", "correlation"):
        assert numbers[name] is None


def test_timings():
    scores = scored(*[(HALF, HALF)] * 5)
    assert scores.timings() == {"clip": {"median": 2.0, "q25": 1.0, "q75": 3.0, "mean": 2.0}}


def test_rounded():
    assert rounded(100 / 3) == 33.3333 and rounded(np.float64(2)) == 2
    assert rounded(math.nan) is None
