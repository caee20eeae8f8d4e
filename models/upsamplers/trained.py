"""Trained networks as upsamplers.

Shapes: as in `models.upsamplers.base`.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..anyup.network import AnyUp
from ..backbones.base import IMAGENET_MEAN, IMAGENET_STD, normalise
from ..device import autocast
from ..loftup.network import LoftUp, restore_text_space
from ..naf.network import NAF
from ..strips import assemble
from ..windows import unit_vectors
from .base import LinearUpsampler, Size, Upsampler, fit_guide
from .registry import TEXT_SPACES


class AnyUpUpsampler(LinearUpsampler):
    """AnyUp; its weights come from features and guide, its values are mixed as they are."""

    upsampled = "features"  # as published; scores are cheaper

    def __init__(self, anyup: AnyUp, *_: object) -> None:
        self.anyup = anyup

    def value_strips(
        self, values: Tensor, features: Tensor, guide: Tensor, size: Size
    ) -> Iterator[Tensor]:
        image = normalise(guide.float(), IMAGENET_MEAN, IMAGENET_STD)
        return self.anyup.strips(values.float(), image, features.float(), size)


class NAFUpsampler(Upsampler):
    """NAF; its weights come from the guide alone, but each head has its own."""

    def __init__(self, naf: NAF, *_: object) -> None:
        self.naf = naf

    def upsample(self, features: Tensor, guide: Tensor, size: Size) -> Tensor:
        return assemble(self.strips(features, guide, size), size[0])

    def strips(self, features: Tensor, guide: Tensor, size: Size) -> Iterator[Tensor]:
        image = normalise(guide.float(), IMAGENET_MEAN, IMAGENET_STD)
        return self.naf.strips(image, features.float(), size)


class LoftUpUpsampler(Upsampler):
    """LoftUp, and the way from its output back to the space of the features.

    Args:
        loftup: trained for the features.
        text_space: "restored" undoes its channel norm; "channel_norm" leaves the output as it is.
        dtype: of its convolutions and products.
    """

    def __init__(
        self,
        loftup: LoftUp,
        text_space: str = "restored",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if text_space not in TEXT_SPACES:
            raise ValueError(f"unknown text_space {text_space!r}; valid: {', '.join(TEXT_SPACES)}")
        self.loftup, self.text_space, self.dtype = loftup, text_space, dtype

    def upsample(self, features: Tensor, guide: Tensor, size: Size) -> Tensor:
        with autocast(features.device, self.dtype):
            upsampled = self.loftup(features, fit_guide(guide, size))
        if self.text_space == "channel_norm":
            return upsampled
        return restore_text_space(upsampled, features, self.loftup.channelnorm.norm)

    def upsample_scores(self, features: Tensor, guide: Tensor, text: Tensor, size: Size) -> Tensor:
        restore = self.text_space == "restored"
        guide = fit_guide(guide, size)
        with autocast(features.device, self.dtype):
            return self.loftup.upsample_scores(features, guide, unit_vectors(text), restore=restore)
