"""The interface of networks that give every patch of an image a vector.

Shapes: B images, C channels, h×w cells, H×W pixels, multiples of the patch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from ..text import Tokenizer

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Colours (B, 3, H, W) in 0…1, less a mean, by a deviation."""
    return (images - _per_channel(mean, images)) / _per_channel(std, images)


def denormalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """The inverse of `normalise`."""
    return images * _per_channel(std, images) + _per_channel(mean, images)


@contextmanager
def same_chance() -> Iterator[None]:
    """Random weights that every process and every resumed run has again."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def square_patch(spec: str, patch_size: tuple[int, int]) -> int:
    """The side of a patch; ValueError unless it is a square."""
    if patch_size[0] != patch_size[1]:
        raise ValueError(f"{spec} has patches of {patch_size} pixels; only squares will do")
    return patch_size[0]


def _per_channel(values: tuple[float, ...], images: Tensor) -> Tensor:
    return torch.tensor(values, device=images.device).view(3, 1, 1)


@dataclass(frozen=True)
class TextSide:
    """What tells features by words: a CLIP whose joint space they live in."""

    clip: Any  # of open_clip, whose classes have no types
    tokenizer: Tokenizer

    @property
    def scale(self) -> float:
        """What CLIP multiplies cosines by."""
        return self.clip.logit_scale.exp().item()


@dataclass(frozen=True)
class Backbone:
    """A frozen network that gives every patch of an image a vector.

    Attributes:
        name: what it was built from, with the attention variant.
        dim: C.
        patch: side of a patch, pixels.
        mean, std: normalisation of its input, for values in 0…1.
        model: the network, in eval mode.
        encode: normalised images (B, 3, H, W) -> (B, C, h, w); where `regions`, it takes region
            maps (B, H, W) of the images as well.
        text: None where the features cannot be compared with words.
        weights: where they come from, for the record.
        kind: of the features, see `models.presets.LOFTUPS`; "" for one of its own.
        regions: see `encode`.
    """

    name: str
    dim: int
    patch: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    model: nn.Module
    encode: Callable[..., Tensor]
    text: TextSide | None = None
    weights: str = "published"
    kind: str = ""
    regions: bool = False

    def normalise(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 to the network's input."""
        return normalise(images.float() / 255, self.mean, self.std)

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> (B, C, h, w) float32, before any normalisation of the features."""
        return self.encode(self.normalise(images)).float()

    def encode_colours(self, images: Tensor) -> Tensor:
        """Features of images (B, 3, H, W) in 0…1, enlarged to whole patches where they are not."""
        size = tuple(-(-side // self.patch) * self.patch for side in images.shape[2:])
        if tuple(images.shape[2:]) != size:
            images = F.interpolate(images, size, mode="bilinear")
        return self.encode(normalise(images, self.mean, self.std)).float()

    def check_side(self, side: int) -> None:
        """ValueError unless images of this side have whole patches."""
        if side % self.patch:
            near = max(1, round(side / self.patch)) * self.patch
            raise ValueError(
                f"side {side} is no multiple of the {self.patch}-pixel patches of {self.name}; "
                f"use for example --side {near}"
            )
