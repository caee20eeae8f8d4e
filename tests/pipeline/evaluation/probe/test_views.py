"""What a probe sees: sizes, cuts, and features of whole patches."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models.backbones.base import Backbone
from pipeline.datasets.base import GroundTruth
from pipeline.evaluation.probe.views import View, as_guide, fitting_size, view_features


@dataclass
class OneImage:
    image: np.ndarray
    truth: GroundTruth
    ignore: int = 255

    def load_image(self, image_id):
        return self.image

    def load_truth(self, image_id):
        return self.truth


@pytest.mark.parametrize(
    ("size", "patch", "expected"),
    [((360, 480), 14, (364, 476)), ((360, 480), 16, (368, 480)), ((3, 40), 16, (16, 48))],
)
def test_nearest_size_in_whole_patches(size, patch, expected):
    assert fitting_size(size, patch) == expected


def test_middle_square():
    labels = np.zeros((8, 12), np.uint8)
    labels[:, 6:] = 3
    image = np.repeat(labels[:, :, None] * 80, 3, axis=2)
    data = OneImage(image, GroundTruth(labels, labels + 1))
    found, truth = View(4).load(data, "a")  # 8×12 -> 4×6, of which columns 1…4
    assert found.shape == (4, 4, 3) and truth.objects is not None
    np.testing.assert_array_equal(truth.labels, [[0, 0, 3, 3]] * 4)
    np.testing.assert_array_equal(truth.objects, truth.labels + 1)
    np.testing.assert_array_equal(found[:, [0, 3], 0], [[0, 240]] * 4)
    whole, same = View(None).load(data, "a")
    assert whole is image and same is data.truth


def test_without_background():
    labels = np.array([[0, 1, 2], [0, 255, 0]], np.uint8)
    data = OneImage(np.zeros((2, 3, 3), np.uint8), GroundTruth(labels, None))
    _, truth = View(background=False).load(data, "a")
    np.testing.assert_array_equal(truth.labels, [[255, 1, 2], [255, 255, 255]])
    assert labels[0, 0] == 0 and View().record == "whole"
    assert View(224, background=False).record == "224, without background"


def test_features_are_of_the_view_in_whole_patches():
    def encode(images):
        return F.avg_pool2d(images, 4)

    backbone = Backbone("mean", 3, 4, (0.5,) * 3, (0.5,) * 3, nn.Identity(), encode)
    image = np.random.default_rng(0).integers(0, 255, (9, 14, 3), dtype=np.uint8)
    guide = as_guide(image)
    assert guide.shape == (1, 3, 9, 14) and guide.max() <= 1
    assert view_features(backbone, guide).shape == (1, 3, 2, 4)
    exact = view_features(backbone, guide[:, :, :8, :12])
    expected = F.avg_pool2d(guide[:, :, :8, :12] * 2 - 1, 4)
    torch.testing.assert_close(exact, expected)
