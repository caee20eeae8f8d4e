"""What a probe sees of an image, and the features of that.

Shapes: H×W pixels of the view, C channels, h×w cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.backbones.base import Backbone, normalise
from models.windows import resize_for_protocol

from ...datasets.base import Dataset, GroundTruth


@dataclass(frozen=True, slots=True)
class View:
    """The whole image, or its middle.

    Attributes:
        side: the short side is resized to so many pixels and the middle square cut out (the
            published protocol, with 224); None takes the image as it is.
        background: label 0 is a class like the others; else it is not scored.
    """

    side: int | None = None
    background: bool = True

    @property
    def record(self) -> str | int:
        """For settings."""
        name = self.side or "whole"
        return name if self.background else f"{name}, without background"

    def load(self, dataset: Dataset, image_id: str) -> tuple[np.ndarray, GroundTruth]:
        """The view (H, W, 3) uint8 RGB and its truth; labels are resized by nearest pixel.

        Raises:
            FileNotFoundError, ValueError: see `Dataset`.
        """
        image, truth = dataset.load_image(image_id), dataset.load_truth(image_id)
        if not self.background:
            labels = truth.labels.copy()
            labels[labels == 0] = dataset.ignore
            truth = GroundTruth(labels, truth.objects)
        if self.side is None:
            return image, truth
        image = resize_for_protocol(image, self.side, 1 << 30)
        size = image.shape[:2]
        objects = None if truth.objects is None else self._cut(_nearest(truth.objects, size))
        return self._cut(image), GroundTruth(self._cut(_nearest(truth.labels, size)), objects)

    def _cut(self, values: np.ndarray) -> np.ndarray:
        assert self.side is not None
        top, left = ((length - self.side) // 2 for length in values.shape[:2])
        return np.ascontiguousarray(values[top : top + self.side, left : left + self.side])


def _nearest(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(labels, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)


def as_guide(image: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W), colours 0…1."""
    return torch.from_numpy(image).to(device).permute(2, 0, 1)[None].float() / 255


def fitting_size(size: tuple[int, int], patch: int) -> tuple[int, int]:
    """The size in whole patches nearest to (H, W), at least one patch each way."""
    height, width = (max(1, int(side / patch + 0.5)) * patch for side in size)
    return height, width


@torch.no_grad()
def view_features(backbone: Backbone, guide: Tensor) -> Tensor:
    """Features (1, C, h, w) of a guide (1, 3, H, W), which is resized to whole patches."""
    size = fitting_size((guide.shape[2], guide.shape[3]), backbone.patch)
    if size != tuple(guide.shape[2:]):
        guide = F.interpolate(guide, size, mode="bilinear", antialias=True)
    return backbone.encode(normalise(guide, backbone.mean, backbone.std)).float()
