"""What the two stages of LoftUp's training share: a batch, what is learnt, the windows.

Both stages compare windows of the output, which begin at patches, with a target. A stage is a
module, so that several processes can train it together; its one trained part is the student.

Shapes: B images, n windows of all images, C channels, h×w patches, s side of a window, S side of an
image, P pixels of an affinity matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.backbones.base import Backbone
from models.device import autocast

from ..loop import weighted_sum
from .config import LoftUpConfig
from .crops import Starts
from .losses import anchor_loss, total_variation
from .samples import Sample
from .students import Student, upsample_student
from .targets import Example, make_examples


@dataclass(frozen=True)
class Batch:
    """One step's windows and what they should be.

    Attributes:
        examples: the images.
        starts: where their windows lie.
        target: (n, C, s, s) float32.
        pixels: (n, P) int64 pixels of each window that the affinity matrix is of; stage 2 only.
    """

    examples: list[Example]
    starts: Starts
    target: Tensor
    pixels: Tensor | None = None


class Stage(nn.Module):
    """What the two stages share; `precision` is the type that the forward pass computes in."""

    zoom = 1  # source images are this many times as large as training images
    weights: dict[str, float]  # of the terms in the loss

    def __init__(
        self, student: Student, backbone: Backbone, config: LoftUpConfig, precision: torch.dtype
    ) -> None:
        super().__init__()
        backbone.check_side(config.side)
        self.student, self.backbone, self.config = student, backbone, config
        self.precision = precision
        self.prepare()

    def prepare(self) -> None:
        """Check what the stage needs, and set its `weights`."""
        raise NotImplementedError

    def examples(self, samples: list[Sample]) -> list[Example]:
        """Training images with their features."""
        purity = self.config.purity
        return make_examples(self.backbone, self.student.channelnorm, samples, purity=purity)

    def upsample(self, batch: Batch, shares: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The windows of a batch, and of `shares`, see `upsample_student`; float32."""
        features = torch.stack([example.features for example in batch.examples])
        images = torch.stack([example.image for example in batch.examples])
        side = batch.target.shape[2]
        with autocast(features.device, self.precision):
            output, mixed = upsample_student(
                self.student, features, images, batch.starts, side, shares
            )
        return output.float(), None if mixed is None else mixed.float()

    def anchor(self, output: Tensor, batch: Batch) -> Tensor:
        """The anchor's term, and gradients only where it has a weight."""
        with torch.set_grad_enabled(self.config.anchor > 0 and torch.is_grad_enabled()):
            features = torch.stack([example.features for example in batch.examples])
            normed = self.student.channelnorm(features)
            return anchor_loss(output, normed, batch.starts, self.backbone.patch)

    def common(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        """The terms that both stages know, those without a weight as far as they cost nothing."""
        terms = {"anchor": self.anchor(output, batch)}
        return terms | ({"tv": total_variation(output)} if self.config.tv else {})

    def batch(
        self, samples: list[Sample], examples: list[Example], rng: np.random.Generator
    ) -> Batch:
        """A step's windows of these images, and their targets."""
        raise NotImplementedError

    def loss(self, terms: dict[str, Tensor]) -> Tensor:
        """The weighted sum of the terms."""
        return weighted_sum(terms, self.weights)

    def after_step(self, step: int) -> None:
        """What follows the optimizer's step number `step`, counted from 1."""


@torch.no_grad()
def mean_cosine(output: Tensor, target: Tensor) -> Tensor:
    """Mean over pixels of the cosine of (…, C, H, W) with its target."""
    return F.cosine_similarity(output, target, dim=-3).mean()
