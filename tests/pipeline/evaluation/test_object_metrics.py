"""Scores of single objects: by hand, and against plain loops."""

import cv2
import numpy as np
import pytest

from pipeline.evaluation.object_metrics import (
    SIZE_BINS,
    ObjectScore,
    mask_true_iou,
    score_objects,
    summarize_sizes,
)


def maps(size=(12, 20)):
    """Truth, prediction and objects, all background."""
    return np.zeros((3, *size), np.uint8)


def test_one_object_by_hand():
    truth, predicted, objects = maps()
    truth[2:6, 2:8], objects[2:6, 2:8] = 4, 1
    predicted[2:6, 4:10] = 4  # hits 16 of 24, 8 outside
    predicted[9:11, 15:18] = 4  # does not touch it
    assert score_objects(truth, predicted, objects) == [ObjectScore(4, 24, 16 / 24, 16 / 32)]


def test_a_diagonal_neighbour_belongs_to_the_component():
    truth, predicted, objects = maps()
    truth[2:4, 2:4], objects[2:4, 2:4] = 4, 1
    predicted[2:4, 2:4] = predicted[4:6, 4:6] = 4
    assert score_objects(truth, predicted, objects)[0].iou == 4 / 8


def test_neighbours_of_one_class_do_not_cost_each_other():
    truth, predicted, objects = maps()
    truth[2:6, 2:12] = 4
    objects[2:6, 2:6], objects[2:6, 6:12] = 1, 7
    predicted[2:6, 2:12] = 4
    assert score_objects(truth, predicted, objects) == [
        ObjectScore(4, 16, 1.0, 1.0),
        ObjectScore(4, 24, 1.0, 1.0),
    ]


def test_spilling_onto_another_class_costs():
    truth, predicted, objects = maps()
    truth[2:6, 2:6], truth[2:6, 6:12] = 4, 5
    objects[2:6, 2:6], objects[2:6, 6:12] = 1, 2
    predicted[2:6, 2:12] = 4
    assert score_objects(truth, predicted, objects) == [
        ObjectScore(4, 16, 1.0, 16 / 40),
        ObjectScore(5, 24, 0.0, 0.0),
    ]


def test_void_pixels_join_components_but_do_not_count():
    truth, predicted, objects = maps()
    truth[2:6, 2:6], objects[2:6, 2:6] = 4, 3
    truth[2:6, 6:8], objects[2:6, 6:8] = 255, 255
    truth[5, 2:6] = 255  # void inside the object's own number
    predicted[2:6, 2:9] = 4  # through the rim, four pixels beyond it
    assert score_objects(truth, predicted, objects) == [ObjectScore(4, 12, 1.0, 12 / 16)]


def test_the_class_is_the_most_frequent_true_label():
    truth, predicted, objects = maps()
    objects[0:4, 0:6] = 9
    truth[0:4, 0:2], truth[0:2, 2:4] = 6, 2  # 8 of 6, 4 of 2, 12 of background
    predicted[0:2, 0:3] = 6  # the third column is wrong
    assert score_objects(truth, predicted, objects) == [ObjectScore(6, 8, 4 / 8, 4 / 10)]


def test_maps_that_disagree_cost_a_perfect_prediction_nothing():
    truth, _, objects = maps()
    truth[2:6, 2:8], objects[3:7, 3:9] = 4, 1  # outlines moved by one pixel
    truth[8:10, 2:8], objects[8:10, 3:6] = 5, 2
    expected = [ObjectScore(4, 15, 1.0, 1.0), ObjectScore(5, 6, 1.0, 1.0)]
    assert score_objects(truth, truth, objects) == expected
    assert mask_true_iou(truth == 4, 4, truth, objects) == 15 / 24


def test_objects_without_labelled_pixels_are_left_out():
    truth, predicted, objects = maps()
    objects[0:2, 0:2], truth[0:2, 0:2] = 1, 255
    objects[5:7, 0:2] = 2  # background only: of no class
    objects[8:, :] = 255
    truth[8:, :] = 3  # of no object
    assert score_objects(truth, predicted, objects) == []


def test_the_last_number_is_an_object():
    truth, predicted, objects = maps()
    truth[1:3, 1:4], objects[1:3, 1:4] = 20, 254
    assert score_objects(truth, predicted, objects) == [ObjectScore(20, 6, 0.0, 0.0)]


def plain_scores(truth, predicted, objects):
    """The definition, object by object and pixel by pixel."""
    classes = {}
    for number in range(1, 255):
        labels = [int(v) for v in truth[objects == number] if v not in (0, 255)]
        if labels:
            classes[number] = max(sorted(set(labels)), key=labels.count)
    scores = []
    for number, label in classes.items():
        own = (objects == number) & (truth == label)
        region = np.zeros(truth.shape, bool)
        todo = [tuple(p) for p in np.argwhere(own & (predicted == label))]
        while todo:  # flood
            y, x = todo.pop()
            inside = 0 <= y < truth.shape[0] and 0 <= x < truth.shape[1]
            if not inside or region[y, x] or predicted[y, x] != label:
                continue
            region[y, x] = True
            todo += [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        region &= (truth != 255) & ((truth != label) | own)
        iou = (own & region).sum() / (own | region).sum()
        recall = (predicted[own] == label).mean()
        scores.append(ObjectScore(label, int(own.sum()), float(recall), float(iou)))
    return scores


@pytest.mark.parametrize("seed", range(8))
def test_random_maps_against_the_plain_loops(seed):
    rng = np.random.default_rng(seed)

    def smooth(count):
        noise = rng.normal(size=(count, 37, 52)).astype(np.float32)
        return np.stack([cv2.GaussianBlur(n, (0, 0), 2) for n in noise]).argmax(0).astype(np.uint8)

    truth, predicted, objects = smooth(5), smooth(4), smooth(9)
    truth[truth == 4] = 255
    objects[objects == 8] = 255
    if seed % 2:  # as in VOC: an object is of one class, and most of the prediction is right
        truth = np.where((truth == 255) | (objects == 255), 255, objects % 3).astype(np.uint8)
        right = (smooth(2) == 1) & (truth != 255)
        predicted[right] = truth[right]
    scores = score_objects(truth, predicted, objects)
    assert scores == plain_scores(truth, predicted, objects)
    assert len(scores) > 3 and len({score.iou for score in scores}) > 3
    for score in scores:
        assert [type(value) for value in score] == [int, int, float, float]


def test_perfect_and_all_background_predictors():
    truth, nothing, objects = maps((90, 130))
    for number, (y, side) in enumerate([(1, 4), (10, 20), (35, 50)], start=1):
        truth[y : y + side, 5 : 5 + side] = number
        objects[y : y + side, 5 : 5 + side] = number
    truth[0] = objects[0] = 255
    assert all(s.recall == s.iou == 1 for s in score_objects(truth, truth % 255, objects))
    scores = score_objects(truth, nothing, objects)
    assert [(s.area, s.recall, s.iou) for s in scores] == [(16, 0, 0), (400, 0, 0), (2500, 0, 0)]


def test_sizes_by_hand():
    names = list(SIZE_BINS)
    assert names == ["under 100 px²", "100 px² to 32²", "32² to 96²", "over 96²"]
    scores = [
        ObjectScore(1, 99, 0.5, 0.25),
        ObjectScore(1, 100, 1.0, 0.5),
        ObjectScore(2, 1023, 0.0, 0.0),
        ObjectScore(2, 500, 1 / 3, 1 / 3),
        ObjectScore(2, 9216, 1.0, 0.75),
    ]
    assert summarize_sizes(iter(scores)) == {
        names[0]: {"objects": 1, "mIoU": 25.0, "recall": 50.0, "found": 0.0},
        names[1]: {"objects": 3, "mIoU": 27.78, "recall": 44.44, "found": 33.33},
        names[2]: {"objects": 0, "mIoU": None, "recall": None, "found": None},
        names[3]: {"objects": 1, "mIoU": 75.0, "recall": 100.0, "found": 100.0},
    }
    edges = summarize_sizes([ObjectScore(1, area, 1.0, 1.0) for area in (1024, 9215)])
    assert edges[names[2]]["objects"] == 2


def test_iou_of_a_mask_with_the_best_object():
    truth, mask, objects = maps()
    mask = mask.astype(bool)
    truth[2:6, 2:12], objects[2:6, 2:6], objects[2:6, 6:12] = 4, 1, 2
    truth[8:10, 2:6], objects[8:10, 2:6] = 5, 3
    mask[2:6, 5:12] = True  # 4 pixels of object 1, all 24 of object 2
    assert mask_true_iou(mask, 4, truth, objects) == 24 / 28
    assert mask_true_iou(mask, 4, truth, None) == 28 / 40
    assert mask_true_iou(mask, 5, truth, objects) == 0
    assert mask_true_iou(mask, 7, truth, objects) == mask_true_iou(mask, 7, truth, None) == 0
    assert mask_true_iou(np.zeros_like(mask), 7, truth, None) == 0
    truth[2:6, 5] = objects[2:6, 5] = 255
    assert mask_true_iou(mask, 4, truth, objects) == 1
