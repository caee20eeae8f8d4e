"""A SAM 2 whose answers are written by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

SIDE = 16  # of its mask logits


class FakeSam:
    """Answers every prompt by its first point.

    Args:
        answers: (x, y) → three masks (16, 16) bool over the whole image, and their predicted IoUs.
            A point not listed is answered like `None`.
    """

    logits_side = SIDE
    image_side = 4 * SIDE

    def __init__(
        self, answers: Mapping[tuple[int, int] | None, tuple[Sequence[np.ndarray], Sequence[float]]]
    ) -> None:
        self.answers = answers
        self.image: np.ndarray | None = None
        self.calls: list[dict[str, object]] = []

    def set_image(self, image: np.ndarray) -> None:
        self.image = image

    def sam_pixel(self) -> np.ndarray:
        return np.array(self.image.shape[1::-1]) / self.image_side

    def middles(self, pixels: np.ndarray) -> np.ndarray:
        return pixels + 0.5 - 0.5 * self.sam_pixel()

    def decode(
        self,
        points: np.ndarray,
        labels: np.ndarray,
        boxes: np.ndarray | None = None,
        mask_logits: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        self.calls.append(
            {"points": points, "labels": labels, "boxes": boxes, "mask_logits": mask_logits}
        )
        masks, ious = [], []
        for row in points:
            x, y = (round(value) for value in (row[0] - 0.5 + 0.5 * self.sam_pixel()).tolist())
            answer, iou = self.answers.get((x, y)) or self.answers[None]
            masks.append(np.stack(answer))
            ious.append(iou)
        logits = torch.from_numpy(np.stack(masks)).float() * 16 - 8
        return logits, torch.tensor(ious, dtype=torch.float32)

    def upscale(self, logits: Tensor) -> Tensor:
        height, width = self.image.shape[0] // SIDE, self.image.shape[1] // SIDE
        return (logits > 0).repeat_interleave(height, 1).repeat_interleave(width, 2)


def grid(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    """(16, 16) mask of one rectangle, ends exclusive."""
    mask = np.zeros((SIDE, SIDE), bool)
    mask[top:bottom, left:right] = True
    return mask
