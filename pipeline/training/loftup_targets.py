"""What LoftUp learns from: windows of rendered scenes and the features their pixels should have.

LoftUp's stage 1 (Huang et al. 2025, arXiv:2504.14032, section 3.3) mixes the bicubically enlarged
features with their mean over the mask a pixel lies in. Two things differ here. The masks are the
scene's own objects and surfaces. And a mask's feature is no mean over its enlarged pixels, which
next to an outline hold the neighbours as well, but over cells, weighted by the square of the
share of the cell that the mask covers: the purer, the more it counts.

Shapes: C channels, h×w cells of one image, H×W pixels, M masks of one image, s side of a window.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.clip_dense import dense_features
from models.loftup import LoftUp

from ..world import Scene
from .clip import normalise


def mask_map(scene: Scene) -> np.ndarray:
    """(H, W) int64 in 0…M-1: one number per object and per visible surface."""
    surfaces = -1 - scene.stuff.astype(np.int64)
    labels = np.where(scene.instances > 0, scene.instances.astype(np.int64), surfaces)
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape)


def cell_shares(masks: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Area share of every mask in every cell, (M, h·w) float32; columns sum to one.

    Args:
        masks: (H, W) in 0…M-1; H and W multiples of the grid's.
        grid: (h, w).
    """
    (height, width), (h, w) = masks.shape, grid
    rows, columns = np.arange(height) * h // height, np.arange(width) * w // width
    cells = rows[:, None] * w + columns  # (H, W)
    count = int(masks.max()) + 1
    shares = np.bincount((masks * (h * w) + cells).ravel(), minlength=count * h * w)
    return shares.reshape(count, h * w).astype(np.float32) * (h * w / (height * width))


def mask_features(features: Tensor, shares: Tensor) -> Tensor:
    """Purity-weighted mean of the cells of every mask, (M, C).

    Args:
        features: (C, h, w).
        shares: (M, h·w) of `cell_shares`.
    """
    weights = shares.square()
    return weights @ features.flatten(1).T / weights.sum(1, keepdim=True)


@functools.cache
def enlargement(cells: int, pixels: int, mode: str = "bicubic") -> Tensor:
    """(pixels, cells) matrix that enlarges one axis as `F.interpolate` does."""
    unit = torch.eye(cells)[None, None]  # (1, 1, cells, cells)
    return F.interpolate(unit, (pixels, cells), mode=mode, align_corners=False)[0, 0]


def enlarge_window(
    grid: Tensor, size: tuple[int, int], top: int, left: int, side: int, mode: str = "bicubic"
) -> Tensor:
    """The window of a grid enlarged to `size`: (C, h, w) -> (C, s, s)."""
    rows = enlargement(grid.shape[1], size[0], mode)[top : top + side]
    columns = enlargement(grid.shape[2], size[1], mode)[left : left + side]
    return rows @ grid @ columns.T


def choose_windows(
    masks: np.ndarray, rng: np.random.Generator, *, count: int, side: int, cell: int
) -> list[tuple[int, int]]:
    """Tops and lefts of windows that begin at cells, three of four on an outline.

    Args:
        masks: (H, W) of `mask_map`.
        rng: source of the choice.
        count: how many.
        side: of a window, a multiple of `cell`.
        cell: side of a cell, pixels.
    """
    height, width = masks.shape
    edges = np.zeros(masks.shape, bool)
    edges[1:] |= masks[1:] != masks[:-1]
    edges[:, 1:] |= masks[:, 1:] != masks[:, :-1]
    places = np.flatnonzero(edges)
    starts = []
    for _ in range(count):
        if len(places) and rng.random() < 0.75:
            row, column = divmod(int(places[rng.integers(len(places))]), width)
        else:
            row, column = int(rng.integers(height)), int(rng.integers(width))
        offset = rng.integers(0, side, 2)  # where in the window that pixel lies
        top = np.clip((row - offset[0]) / cell + 0.5, 0, (height - side) / cell)
        left = np.clip((column - offset[1]) / cell + 0.5, 0, (width - side) / cell)
        starts.append((int(top) * cell, int(left) * cell))
    return starts


@dataclass(frozen=True)
class Example:
    """One scene as training needs it.

    Attributes:
        image: (3, H, W) uint8.
        features: (C, h, w), before any normalisation.
        masks: (H, W) in 0…M-1.
        normed: (M, C) mask features in the space of the channel norm.
        joint: (M, C) mask features in the joint space, unit vectors.
    """

    image: Tensor
    features: Tensor
    masks: np.ndarray
    normed: Tensor
    joint: Tensor


@torch.no_grad()
def make_examples(clip: nn.Module, loftup: LoftUp, scenes: list[Scene]) -> list[Example]:
    """Features and mask features of scenes, all of one size."""
    features = dense_features(clip, normalise([scene.image for scene in scenes], clip)).float()
    normed = loftup.channelnorm(features)
    examples = []
    for scene, cells, normed_cells in zip(scenes, features, normed, strict=True):
        masks = mask_map(scene)
        shares = torch.from_numpy(cell_shares(masks, cells.shape[1:]))
        examples.append(
            Example(
                image=torch.from_numpy(scene.image).permute(2, 0, 1),
                features=cells,
                masks=masks,
                normed=mask_features(normed_cells, shares),
                joint=F.normalize(mask_features(cells, shares), dim=1),
            )
        )
    return examples
