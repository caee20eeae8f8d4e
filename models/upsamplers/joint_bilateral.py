"""Joint bilateral upsampling (Kopf et al., SIGGRAPH 2007), without training.

A pixel is a convex mix of the patches around it; a patch counts the more, the nearer it is and the
more its colour is the pixel's.

Shapes: B batch, V channels, h w low-resolution grid, H W pixels of the guide; a tile has r×c pixels
and sees m×n patches.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import LinearUpsampler, Size, fit_guide

RADIUS = 2  # patches to each side: 5×5, as in the paper
SIGMA_SPACE = 0.5  # patches; a wider one blurs photographs, and is better on drawings
SIGMA_COLOUR = 0.1  # of colours 0…1
_TILE = 32, 64  # rows and columns worked on at once


class JointBilateral(LinearUpsampler):
    """The upsampler of this module.

    Args:
        sigma_space: deviation of the spatial weights, patches; None is `SIGMA_SPACE`.
    """

    def __init__(self, sigma_space: float | None = None) -> None:
        self.sigma_space = sigma_space

    def value_strips(
        self, values: Tensor, features: Tensor, guide: Tensor, size: Size
    ) -> Iterator[Tensor]:
        guide = fit_guide(guide, size)
        return joint_bilateral_strips(values.float(), guide, self.sigma_space)


def joint_bilateral_strips(
    values: Tensor, guide: Tensor, sigma_space: float | None = None
) -> Iterator[Tensor]:
    """Upsample values to the guide, strip by strip.

    Args:
        values: (B, V, h, w).
        guide: (B, 3, H, W), colours 0…1. A patch's colour is the mean over its pixels.
        sigma_space: see `JointBilateral`.

    Yields:
        (B, V, rows, W), from top to bottom.
    """
    sigma_space = SIGMA_SPACE if sigma_space is None else sigma_space
    height, width = guide.shape[2:]
    grid = (values.shape[2], values.shape[3])
    colours = F.adaptive_avg_pool2d(guide, grid) / SIGMA_COLOUR
    for top in range(0, height, _TILE[0]):
        rows = slice(top, min(top + _TILE[0], height))
        first_row, near_row = _nearness(rows, height, grid[0], sigma_space)
        parts = []
        for left in range(0, width, _TILE[1]):
            columns = slice(left, min(left + _TILE[1], width))
            first, near = _nearness(columns, width, grid[1], sigma_space)
            down = slice(first_row, first_row + near_row.shape[1])
            across = slice(first, first + near.shape[1])
            near = (near_row[:, None, :, None] + near[None, :, None, :]).to(guide.device)
            pixels = guide[:, :, rows, columns] / SIGMA_COLOUR
            weights = _weights(pixels, colours[:, :, down, across], near)
            mixed = values[:, :, down, across].flatten(2) @ weights.to(values.dtype)  # (B, V, r·c)
            parts.append(mixed.unflatten(2, (rows.stop - rows.start, -1)))
        yield torch.cat(parts, dim=3)


def _nearness(pixels: slice, length: int, patches: int, sigma: float) -> tuple[int, Tensor]:
    """First patch that the pixels of an axis see, and log weights (pixels, patches seen)."""
    position = (torch.arange(pixels.start, pixels.stop) + 0.5) * patches / length - 0.5
    nearest = position.round().clamp(0, patches - 1)
    first = max(0, int(nearest[0]) - RADIUS)
    seen = torch.arange(first, min(patches, int(nearest[-1]) + RADIUS + 1))
    weight = -((seen - position[:, None]) ** 2) / (2 * sigma**2)
    return first, weight.masked_fill((seen - nearest[:, None]).abs() > RADIUS, -torch.inf)


def _weights(pixels: Tensor, patches: Tensor, near: Tensor) -> Tensor:
    """Weights (B, m·n, r·c) of patches for pixels, summing to 1 over the patches.

    Args:
        pixels: (B, 3, r, c), colours over their deviation.
        patches: (B, 3, m, n), likewise.
        near: (r, c, m, n), logarithms of the spatial weights.
    """
    # Of |p - c|² only -2·p·c + |c|² differs between patches, and a softmax sees no more than that;
    # seen from the mean colour, so that little is lost to rounding.
    centre = patches.mean((2, 3), keepdim=True)
    pixels, patches = (pixels - centre).flatten(2), (patches - centre).flatten(2).transpose(1, 2)
    squares = patches.square().sum(2, keepdim=True) / 2  # (B, m·n, 1)
    near = near.flatten(2).flatten(0, 1).T
    # A softmax, for a colour that no patch has would make all weights zero.
    return torch.baddbmm(near - squares, patches, pixels).softmax(dim=1)
