"""What an image's pixels should have: its own features, upsampled, drawn to their masks' means.

LoftUp's stage 1 (Huang et al. 2025, arXiv:2504.14032, section 3.3) mixes the bicubically upsampled
features with their mean over the mask a pixel lies in. Both ways to take that mean are weighted
means over patches. The paper's averages upsampled pixels, which next to an outline hold the
neighbours as well. The `purity` way weighs a patch by the square of the share of it that the mask
covers: the purer, the more it counts.

Shapes: C channels, h×w patches of one image, H×W pixels, M masks of R regions (see `masks`; in most
data every mask is a region), s side of a window.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.backbones.base import Backbone

from .masks import draw_to_masks, drawing
from .samples import Sample


def patch_shares(masks: np.ndarray, grid: Sequence[int]) -> np.ndarray:
    """Area share of every region of a map (H, W) in every patch, (R, h·w) float32.

    H and W are multiples of the `grid`'s h and w.
    """
    (height, width), (h, w) = masks.shape, grid
    rows, columns = np.arange(height) * h // height, np.arange(width) * w // width
    patch = rows[:, None] * w + columns  # (H, W)
    count, inside = int(masks.max()) + 1, masks >= 0
    shares = np.bincount((masks * (h * w) + patch)[inside], minlength=count * h * w)
    return shares.reshape(count, h * w).astype(np.float32) * (h * w / (height * width))


def mask_weights(masks: np.ndarray, grid: Sequence[int], *, purity: bool) -> Tensor:
    """Every patch's weight in the mean of every region, (R, h·w) float32; rows sum to one.

    With `purity` by the square of the region's share of a patch, else such that the mean is that of
    the bicubically upsampled features over the region's pixels. Arguments as for `patch_shares`.
    """
    if purity:
        weights = torch.from_numpy(patch_shares(masks, grid)).square()
    else:
        # Upsampling is linear: the mean over pixels is one over patches, and needs no pixels.
        rows, columns = (upsampling(g, n) for g, n in zip(grid, masks.shape, strict=True))
        count, (height, _) = int(masks.max()) + 1, masks.shape
        owner = torch.from_numpy(masks + np.arange(height)[:, None] * count)  # of every row's own
        inside = torch.from_numpy(masks >= 0)
        sums = torch.zeros(height * count, grid[1])
        sums.index_add_(0, owner[inside], columns.expand(height, -1, -1)[inside])
        weights = (rows.T @ sums.view(height, -1)).unflatten(1, (count, -1))  # (h, R, w)
        weights = weights.transpose(0, 1).flatten(1)
    return weights / weights.sum(1, keepdim=True)


@functools.cache
def upsampling(patches: int, pixels: int, mode: str = "bicubic") -> Tensor:
    """(pixels, patches) matrix that upsamples one axis as `F.interpolate` does."""
    unit = torch.eye(patches)[None, None]
    return F.interpolate(unit, (pixels, patches), mode=mode, align_corners=False)[0, 0]


@functools.cache
def reduction(pixels: int, fewer: int) -> Tensor:
    """(fewer, pixels) matrix of area shares that shrinks one axis exactly."""
    edges = torch.arange(pixels + 1, dtype=torch.float64)
    bounds = torch.arange(fewer + 1, dtype=torch.float64) * pixels / fewer
    low = torch.maximum(edges[:-1], bounds[:-1, None])
    high = torch.minimum(edges[1:], bounds[1:, None])
    return ((high - low).clamp_min(0) * fewer / pixels).float()


def upsample_window(
    grid: Tensor, size: Sequence[int], window: tuple[int, int, int], mode: str = "bicubic"
) -> Tensor:
    """A window (top, left, side) of a grid upsampled to `size`: (C, h, w) -> (C, s, s)."""
    top, left, side = window
    rows = upsampling(grid.shape[1], size[0], mode).to(grid.device)[top : top + side]
    columns = upsampling(grid.shape[2], size[1], mode).to(grid.device)[left : left + side]
    return rows @ grid @ columns.T


def to_tensor(members: np.ndarray | None, device: torch.device) -> Tensor | None:
    """The members of a sample where its features are."""
    return None if members is None else torch.from_numpy(members).to(device)


FEW_PATCHES = 16  # masks of fewer patches take their feature from the larger image alone


@dataclass(frozen=True)
class Example:
    """One image as training needs it.

    Attributes:
        image: (3, H, W) uint8.
        features: (C, h, w), before any normalisation.
        masks: (H, W) int64, a map of regions.
        normed: (R, C) mean features of the regions in the space of the channel norm.
        joint: (R, C) the same in the backbone's own space, unit vectors.
        members: (M, R) bool, which regions every mask is made of; None: each is a mask.
    """

    image: Tensor
    features: Tensor
    masks: Tensor
    normed: Tensor
    joint: Tensor
    members: Tensor | None = None


@torch.no_grad()
def make_examples(
    backbone: Backbone, channelnorm: nn.Module, samples: list[Sample], *, purity: bool
) -> list[Example]:
    """Features and mask features of samples, all of one size, where the channel norm is."""
    device = next(channelnorm.parameters()).device
    images = torch.from_numpy(np.stack([sample.image for sample in samples]))
    images = images.permute(0, 3, 1, 2).contiguous().to(device)
    features = backbone.features(images)
    normed = channelnorm(features)
    examples = []
    for sample, image, own, own_normed in zip(samples, images, features, normed, strict=True):
        weights = mask_weights(sample.masks, own.shape[1:], purity=purity).to(device)
        examples.append(
            Example(
                image=image,
                features=own,
                masks=torch.from_numpy(sample.masks).to(device),
                normed=weights @ own_normed.flatten(1).T,
                joint=F.normalize(weights @ own.flatten(1).T, dim=1),
                members=to_tensor(sample.members, device),
            )
        )
    return examples


@torch.no_grad()
def add_detail(
    example: Example, image: np.ndarray, backbone: Backbone, channelnorm: nn.Module
) -> Example:
    """The example with mask features that also come from the same image in more pixels.

    What stage 2's teacher sees, without a teacher. A small mask fills hardly a patch of the image,
    and its mean is mostly its neighbours'; four times as many patches name it better. Of a thing
    that is cut by the tiles they name only parts: masks of many patches get the mean of both.

    Args:
        example: the image, H×W pixels.
        image: (2·H, 2·W, 3) uint8.
        backbone: gives the features, tile by tile.
        channelnorm: the LoftUp's.
    """
    device, (height, width) = example.features.device, example.masks.shape
    pixels = torch.from_numpy(image).permute(2, 0, 1).to(device)  # (3, 2·H, 2·W)
    tiles = pixels.unflatten(2, (2, width)).unflatten(1, (2, height)).permute(1, 3, 0, 2, 4)
    features = backbone.features(tiles.flatten(0, 1).contiguous())  # (4, C, h, w)
    grid = features.unflatten(0, (2, 2)).permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2)
    masks = example.masks.cpu().numpy().repeat(2, 0).repeat(2, 1)
    weights = mask_weights(masks, grid.shape[1:], purity=True).to(device)
    normed = weights @ channelnorm(grid[None])[0].flatten(1).T
    joint = F.normalize(weights @ grid.flatten(1).T, dim=1)
    patches = torch.bincount(example.masks[example.masks >= 0], minlength=len(weights))
    patches = patches * example.features[0].numel() / (height * width)
    share = torch.where(patches < FEW_PATCHES, 1.0, 0.5)[:, None].to(device)
    return dataclasses.replace(
        example,
        normed=torch.lerp(example.normed, normed, share),
        joint=F.normalize(torch.lerp(example.joint, joint, share), dim=1),
    )


def stage1_target(
    example: Example, normed: Tensor, alpha: float, window: tuple[int, int, int]
) -> Tensor:
    """(C, s, s): the target in a window (top, left, side) of the image, pixels.

    `normed` are the features after the channel norm, (C, h, w), `alpha` weighs the mask's mean.
    """
    top, left, side = window
    bicubic = upsample_window(normed, example.masks.shape, window)
    inside = example.masks[top : top + side, left : left + side]
    drawn = drawing(example.normed, example.masks, example.members, alpha)
    return draw_to_masks(bicubic, *drawn, inside)
