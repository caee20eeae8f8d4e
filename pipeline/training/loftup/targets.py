"""What an image's pixels should have: its own features, enlarged, drawn to their masks' means.

LoftUp's stage 1 (Huang et al. 2025, arXiv:2504.14032, section 3.3) mixes the bicubically enlarged
features with their mean over the mask a pixel lies in. Both ways to take that mean are weighted
means over cells. The paper's averages enlarged pixels, which next to an outline hold the
neighbours as well. The `purity` way weighs a cell by the square of the share of it that the mask
covers: the purer, the more it counts.

Shapes: C channels, h×w cells of one image, H×W pixels, M masks of one image, s side of a window.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.backbones.base import Backbone

from .samples import Sample


def cell_shares(masks: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Area share of every mask in every cell, (M, h·w) float32.

    Args:
        masks: (H, W), a mask map; H and W multiples of the grid's.
        grid: (h, w).
    """
    (height, width), (h, w) = masks.shape, grid
    rows, columns = np.arange(height) * h // height, np.arange(width) * w // width
    cells = rows[:, None] * w + columns  # (H, W)
    count, inside = int(masks.max()) + 1, masks >= 0
    shares = np.bincount((masks * (h * w) + cells)[inside], minlength=count * h * w)
    return shares.reshape(count, h * w).astype(np.float32) * (h * w / (height * width))


def mask_weights(masks: np.ndarray, grid: tuple[int, int], *, purity: bool) -> Tensor:
    """Every cell's weight in the mean of every mask, (M, h·w) float32; rows sum to one.

    Args:
        masks: (H, W), a mask map.
        grid: (h, w).
        purity: by the square of the mask's share of a cell; else such that the mean is that of
            the bicubically enlarged features over the mask's pixels.
    """
    if purity:
        weights = torch.from_numpy(cell_shares(masks, grid)).square()
    else:
        # Enlarging is linear: the mean over pixels is one over cells, without a pixel's features.
        count = int(masks.max()) + 1
        members = torch.from_numpy(masks[None] == np.arange(count)[:, None, None]).float()
        rows, columns = (enlargement(g, n) for g, n in zip(grid, masks.shape, strict=True))
        weights = (rows.T @ members @ columns).flatten(1)
    return weights / weights.sum(1, keepdim=True)


@functools.cache
def enlargement(cells: int, pixels: int, mode: str = "bicubic") -> Tensor:
    """(pixels, cells) matrix that enlarges one axis as `F.interpolate` does."""
    unit = torch.eye(cells)[None, None]  # (1, 1, cells, cells)
    return F.interpolate(unit, (pixels, cells), mode=mode, align_corners=False)[0, 0]


@functools.cache
def reduction(pixels: int, cells: int) -> Tensor:
    """(cells, pixels) matrix of area shares that shrinks one axis exactly."""
    edges = torch.arange(pixels + 1, dtype=torch.float64)
    bounds = torch.arange(cells + 1, dtype=torch.float64) * pixels / cells
    low = torch.maximum(edges[:-1], bounds[:-1, None])
    high = torch.minimum(edges[1:], bounds[1:, None])
    return ((high - low).clamp_min(0) * cells / pixels).float()


def enlarge_window(
    grid: Tensor, size: tuple[int, int], top: int, left: int, side: int, mode: str = "bicubic"
) -> Tensor:
    """The window of a grid enlarged to `size`: (C, h, w) -> (C, s, s)."""
    rows = enlargement(grid.shape[1], size[0], mode).to(grid.device)[top : top + side]
    columns = enlargement(grid.shape[2], size[1], mode).to(grid.device)[left : left + side]
    return rows @ grid @ columns.T


def draw_to_masks(pixels: Tensor, means: Tensor, masks: Tensor, alpha: float) -> Tensor:
    """α · the mean of a pixel's mask + (1 − α) · its own features, which it keeps without a mask.

    Args:
        pixels: (C, H, W).
        means: (M, C).
        masks: (H, W) int64, a mask map.
        alpha: α.
    """
    if not len(means):
        return pixels
    by_mask = means[masks.clamp_min(0)].movedim(2, 0)
    return torch.where(masks >= 0, alpha * by_mask + (1 - alpha) * pixels, pixels)


def refine(pixels: Tensor, masks: Tensor, alpha: float) -> Tensor:
    """Draw full-resolution features (C, H, W) to the means over their own masks."""
    count = int(masks.max()) + 1
    inside = masks >= 0
    owner, values = masks[inside], pixels.movedim(0, 2)[inside]  # (N,), (N, C)
    sums = values.new_zeros(count, len(pixels)).index_add_(0, owner, values)
    sizes = torch.bincount(owner, minlength=count).clamp_min(1)
    return draw_to_masks(pixels, sums / sizes[:, None], masks, alpha)


FEW_CELLS = 16  # masks of fewer cells take their feature from the enlarged image alone


@dataclass(frozen=True)
class Example:
    """One image as training needs it.

    Attributes:
        image: (3, H, W) uint8.
        features: (C, h, w), before any normalisation.
        masks: (H, W) int64, a mask map.
        normed: (M, C) mask features in the space of the channel norm.
        joint: (M, C) mask features in the backbone's own space, unit vectors.
    """

    image: Tensor
    features: Tensor
    masks: Tensor
    normed: Tensor
    joint: Tensor


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
    for sample, image, cells, normed_cells in zip(samples, images, features, normed, strict=True):
        weights = mask_weights(sample.masks, tuple(cells.shape[1:]), purity=purity).to(device)
        examples.append(
            Example(
                image=image,
                features=cells,
                masks=torch.from_numpy(sample.masks).to(device),
                normed=weights @ normed_cells.flatten(1).T,
                joint=F.normalize(weights @ cells.flatten(1).T, dim=1),
            )
        )
    return examples


@torch.no_grad()
def add_detail(
    example: Example, image: np.ndarray, backbone: Backbone, channelnorm: nn.Module
) -> Example:
    """The example with mask features that also come from the same image in more pixels.

    What stage 2's teacher sees, without a teacher. A small mask fills hardly a cell of the image,
    and its mean is mostly its neighbours'; four times as many cells name it better. Of a thing
    that is cut by the tiles they name only parts: masks of many cells get the mean of both.

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
    weights = mask_weights(masks, tuple(grid.shape[1:]), purity=True).to(device)
    normed = weights @ channelnorm(grid[None])[0].flatten(1).T
    joint = F.normalize(weights @ grid.flatten(1).T, dim=1)
    cells = torch.bincount(example.masks[example.masks >= 0], minlength=len(weights))
    cells = cells * example.features[0].numel() / (height * width)
    share = torch.where(cells < FEW_CELLS, 1.0, 0.5)[:, None].to(device)
    return dataclasses.replace(
        example,
        normed=torch.lerp(example.normed, normed, share),
        joint=F.normalize(torch.lerp(example.joint, joint, share), dim=1),
    )


def stage1_target(
    example: Example, normed: Tensor, alpha: float, window: tuple[int, int, int]
) -> Tensor:
    """(C, s, s): the target in a window (top, left, side) of the image.

    Args:
        example: the image.
        normed: (C, h, w), its features after the channel norm.
        alpha: share of the mask's mean.
        window: pixels.
    """
    top, left, side = window
    bicubic = enlarge_window(normed, tuple(example.masks.shape), top, left, side)
    inside = example.masks[top : top + side, left : left + side]
    return draw_to_masks(bicubic, example.normed, inside, alpha)
