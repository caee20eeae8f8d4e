"""Stage 1: towards the mask means of the image's own features.

Shapes: n windows, C channels, s side of a window.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.backbones.base import Backbone
from models.loftup.network import LoftUp

from .config import LoftUpConfig
from .crops import choose_windows
from .losses import mask_loss
from .samples import Sample, resize
from .stage import Batch, Stage, mean_cosine
from .targets import Example, add_detail, stage1_target


class FirstStage(Stage):
    """Towards the mask means of the image's own features (arXiv:2504.14032, section 3.3)."""

    def __init__(
        self, loftup: LoftUp, backbone: Backbone, config: LoftUpConfig, precision: torch.dtype
    ) -> None:
        super().__init__(loftup, backbone, config, precision)
        if config.mask and backbone.text is None:
            raise ValueError(f"{backbone.name} has no text side for the mask term: add --mask 0")
        if config.windows and (config.window_side % backbone.patch or self.side > config.side):
            raise ValueError(
                f"window_side must be a multiple of {backbone.name}'s patch of {backbone.patch} "
                f"pixels and at most the side {config.side}, got {config.window_side}"
            )
        self.weights = {"l2": 1.0, "mask": config.mask, "anchor": config.anchor}
        self.scale = backbone.text.scale if config.mask else math.nan
        self.zoom = 2 if config.detail else 1

    @property
    def side(self) -> int:
        """Side of a window, pixels."""
        return self.config.window_side if self.config.windows else self.config.side

    def examples(self, samples: list[Sample]) -> list[Example]:
        """Training images; with `detail` from larger samples, whose detail the masks' means get."""
        side = self.config.side
        small = [resize(s.image, s.masks, side) if len(s.image) > side else s for s in samples]
        examples = super().examples(small)
        return [
            add_detail(example, sample.image, self.backbone, self.loftup.channelnorm)
            if len(sample.image) > side
            else example
            for example, sample in zip(examples, samples, strict=True)
        ]

    def batch(
        self, samples: list[Sample], examples: list[Example], rng: np.random.Generator
    ) -> Batch:
        """Windows of the examples, and their targets."""
        starts = [
            choose_windows(
                example.masks.cpu().numpy(),
                rng,
                count=max(1, self.config.windows),
                side=self.side,
                cell=self.backbone.patch,
            )
            for example in examples
        ]
        with torch.no_grad():
            target = torch.stack(
                [
                    stage1_target(example, normed, self.config.alpha, (top, left, self.side))
                    for example, places in zip(examples, starts, strict=True)
                    for normed in [self.loftup.channelnorm(example.features[None])[0]]
                    for top, left in places
                ]
            )
        return Batch(examples, starts, target)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The terms of the loss, and the mean cosine with the target."""
        output = self.upsample(self.loftup, batch)
        terms = {"l2": F.mse_loss(output, batch.target)}
        if self.config.mask:
            terms["mask"] = mask_loss(
                output, batch.target, batch.examples, batch.starts, self.scale
            )
        terms["anchor"] = self.anchor(output, batch)
        return terms | {"cosine": mean_cosine(output, batch.target)}
