"""Stage 1: towards the mask means of the image's own features.

Shapes: n windows, C channels, s side of a window.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .crops import choose_windows
from .losses import mask_loss, share_loss, stack_shares
from .samples import Sample, resize
from .stage import Batch, Stage, mean_cosine
from .targets import Example, add_detail, stage1_target


class FirstStage(Stage):
    """Towards the mask means of the image's own features (arXiv:2504.14032, section 3.3)."""

    def prepare(self) -> None:
        config, backbone = self.config, self.backbone
        if config.mask and backbone.text is None:
            raise ValueError(f"{backbone.name} has no text side for the mask term: add --mask 0")
        if config.windows and (config.window_side % backbone.patch or self.side > config.side):
            raise ValueError(
                f"window_side must be a multiple of {backbone.name}'s patch of {backbone.patch} "
                f"pixels and at most the side {config.side}, got {config.window_side}"
            )
        terms = ("l2", "shares", "mask", "anchor", "tv")
        self.weights = {term: getattr(config, term) for term in terms}
        self.scale = backbone.text.scale if backbone.text else math.nan
        self.zoom = 2 if config.detail else 1

    @property
    def side(self) -> int:
        """Side of a window, pixels."""
        return self.config.window_side if self.config.windows else self.config.side

    def examples(self, samples: list[Sample]) -> list[Example]:
        """Training images; with `detail` from larger samples, whose detail the masks' means get."""
        side = self.config.side
        small = [resize(s, side) if len(s.image) > side else s for s in samples]
        examples, norm = super().examples(small), self.student.channelnorm
        return [
            add_detail(e, s.image, self.backbone, norm) if len(s.image) > side else e
            for e, s in zip(examples, samples, strict=True)
        ]

    def batch(
        self, samples: list[Sample], examples: list[Example], rng: np.random.Generator
    ) -> Batch:
        """Windows of the examples, and their targets."""
        count, side, patch = max(1, self.config.windows), self.side, self.backbone.patch
        starts = [
            choose_windows(e.masks.cpu().numpy(), rng, count=count, side=side, patch=patch)
            for e in examples
        ]
        with torch.no_grad():
            target = []
            for example, places in zip(examples, starts, strict=True):
                normed = self.student.channelnorm(example.features[None])[0]
                for place in places:
                    target.append(stage1_target(example, normed, self.config.alpha, (*place, side)))
        return Batch(examples, starts, torch.stack(target))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The terms of the loss, and the mean cosine with the target."""
        examples, starts = batch.examples, batch.starts
        shares = stack_shares(examples) if self.config.shares else None
        output, mixed = self.upsample(batch, shares)
        terms = {"l2": F.mse_loss(output, batch.target)}
        if mixed is not None:
            terms["shares"] = share_loss(mixed, examples, starts)
        if self.config.mask:
            terms["mask"] = mask_loss(output, batch.target, examples, starts, self.scale)
        terms |= self.common(output, batch)
        return terms | {"cosine": mean_cosine(output, batch.target)}
