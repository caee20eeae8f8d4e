"""Upper bounds on truths made by hand, with a SAM 2 whose answers are written by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from models.presets import AutomaticMasks
from pipeline.config import PipelineConfig
from pipeline.datasets.base import GroundTruth
from pipeline.datasets.voc import IGNORE
from pipeline.evaluation.oracles import masks_by_truth, masks_from_true_points, true_regions

from ..datasets.voc_folders import blocks
from ..fakes import FakeSam, grid

SIZE = (48, 80)  # three by five pixels per cell of the fake's masks
NOTHING, ALL = grid(0, 0, 0, 0), grid(0, 0, 16, 16)


@pytest.fixture
def truth() -> GroundTruth:
    """Two cows (10) that touch, a dog (12) shaped like a U, void around and between them."""
    objects = blocks(
        SIZE, (1, 4, 4, 20, 20), (2, 4, 20, 20, 34), (3, 6, 40, 40, 76), (0, 6, 46, 32, 70),
        (IGNORE, 20, 4, 22, 34), (IGNORE, 40, 40, 42, 76),
    )  # fmt: skip
    labels = np.array([0, 10, 10, 12], np.uint8)[np.minimum(objects, 3)]
    labels[objects == IGNORE] = IGNORE
    return GroundTruth(labels=labels, objects=objects)


def sam_for(size: tuple[int, int], answers: dict) -> FakeSam:
    sam = FakeSam(answers)
    sam.set_image(np.zeros((*size, 3), np.uint8))
    return sam


def clicks(sam: FakeSam) -> list[tuple[int, int]]:
    """(x, y) of every click, all of them positive."""
    (call,) = sam.calls
    assert call["points"].shape[1] == 1 and (call["labels"] == 1).all()
    assert call["boxes"] is None and call["mask_logits"] is None  # the point alone
    pixels = call["points"][:, 0] - sam.middles(np.zeros(2))
    return [(round(x), round(y)) for x, y in pixels.tolist()]


def test_a_click_inside_every_true_object(truth):
    sam = sam_for(SIZE, {None: ((NOTHING,) * 3, (0.1, 0.2, 0.3))})
    labels, masks = masks_from_true_points(sam, truth, PipelineConfig())
    points = clicks(sam)
    assert [truth.objects[y, x] for x, y in points] == [1, 2, 3]
    assert [mask["label"] for mask in masks] == [10, 10, 12]
    assert [mask["points"] for mask in masks] == [[list(point)] for point in points]
    # Deep inside, also where the middle of the object is not in it.
    for (x, y), least in zip(points, (6, 6, 2), strict=True):
        window = truth.objects[y - least : y + least + 1, x - least : x + least + 1]
        assert (window == truth.objects[y, x]).all()
    assert not labels.any()  # SAM's masks were empty


def test_without_objects_a_click_per_class(truth):
    sam = sam_for(SIZE, {None: ((NOTHING,) * 3, (0.1, 0.2, 0.3))})
    _, masks = masks_from_true_points(sam, GroundTruth(truth.labels, None), PipelineConfig())
    assert [truth.labels[y, x] for x, y in clicks(sam)] == [10, 12]
    assert [mask["label"] for mask in masks] == [10, 12]


def test_the_trusted_mask_of_three_and_the_better_of_two(truth):
    left, right = grid(0, 0, 16, 8), grid(0, 6, 16, 16)
    answers = {None: ((left, ALL, NOTHING), (0.6, 0.5, 0.4))}
    for x in range(40, 80):
        for y in range(48):
            answers[x, y] = ((NOTHING, NOTHING, right), (0.1, 0.2, 0.9))
    sam = sam_for(SIZE, answers)
    labels, masks = masks_from_true_points(sam, truth, PipelineConfig())
    expected = np.zeros(SIZE, np.uint8)
    expected[:, :40], expected[:, 30:] = 10, 12
    assert np.array_equal(labels, expected) and labels.dtype == np.uint8
    assert [mask["source"] for mask in masks] == ["sam2"] * 3
    assert [mask["score"] for mask in masks] == pytest.approx([0.6, 0.6, 0.9])
    assert np.array_equal(masks[0]["mask"], np.arange(80)[None] < 40 + np.zeros((48, 1)))


def test_what_counts_as_an_object():
    objects = blocks(SIZE, (7, 0, 0, 10, 10), (9, 20, 20, 30, 30), (200, 40, 40, 44, 44))
    labels = blocks(SIZE, (10, 0, 0, 10, 10), (12, 0, 0, 10, 3))  # most of object 7 is a cow
    labels[40:44, 40:44] = IGNORE  # and where object 200 is, nobody knows
    ((label, region),) = true_regions(GroundTruth(labels, objects))  # object 9 is background
    assert label == 10
    assert np.array_equal(region.paste(SIZE), blocks(SIZE, (1, 0, 3, 10, 10)).astype(bool))
    assert true_regions(GroundTruth(np.full(SIZE, IGNORE, np.uint8), None)) == []
    nothing = GroundTruth(np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.uint8))
    labels, masks = masks_from_true_points(sam_for(SIZE, {}), nothing, PipelineConfig())
    assert masks == [] and labels.shape == SIZE and not labels.any()


def by_truth(labels: np.ndarray, *masks: np.ndarray) -> np.ndarray:
    settings = AutomaticMasks(points_per_side=3)
    asked = []

    def automatic(image, given):
        asked.append((image.shape, given))
        return [{"segmentation": mask.astype(bool)} for mask in masks]

    image = np.zeros((*labels.shape, 3), np.uint8)
    found = masks_by_truth(SimpleNamespace(automatic=automatic), image, labels, settings)
    assert asked == [(image.shape, settings)]
    assert found.dtype == np.uint8
    return found


def test_a_mask_takes_the_label_of_most_of_its_pixels():
    labels = blocks(SIZE, (10, 0, 0, 20, 20), (12, 20, 0, 40, 20))
    cows = blocks(SIZE, (1, 0, 0, 31, 20))  # 400 of cows, 220 of dogs
    ground = blocks(SIZE, (1, 30, 15, 48, 60))  # mostly nothing
    found = by_truth(labels, cows, ground)
    assert np.array_equal(found, blocks(SIZE, (10, 0, 0, 31, 20)))
    assert not by_truth(labels).any()  # no mask, no class


def test_void_has_no_vote():
    labels = np.full(SIZE, IGNORE, np.uint8)
    labels[10:12, 10:12] = 12
    mask, void = blocks(SIZE, (1, 0, 0, 30, 30)), blocks(SIZE, (1, 40, 40, 48, 80))
    found = by_truth(labels, mask, void)
    assert np.array_equal(found, blocks(SIZE, (12, 0, 0, 30, 30)))


def test_the_smallest_mask_decides():
    labels = blocks(SIZE, (10, 0, 0, 40, 40), (12, 10, 10, 14, 14), (15, 11, 11, 13, 13))
    large, middle, small = (
        blocks(SIZE, (1, 0, 0, 40, 40)),
        blocks(SIZE, (1, 10, 10, 14, 14)),
        blocks(SIZE, (1, 11, 11, 13, 13)),
    )
    for masks in ((large, middle, small), (small, middle, large), (middle, large, small)):
        assert np.array_equal(by_truth(labels, *masks), labels)
