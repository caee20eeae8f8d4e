"""Joint bilateral upsampling (Kopf et al., SIGGRAPH 2007), without training.

A pixel is a convex mix of the cells around it; a cell counts the more, the nearer it is and the
more its colour is the pixel's.

Shapes: B batch, V channels, h w low-resolution grid, H W pixels of the guide; a tile has r×c pixels
and sees m×n cells.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import LinearUpsampler, Size, fit_guide

RADIUS = 2  # cells to each side: 5×5, as in the paper
SIGMA_SPACE = 0.75  # cells
SIGMA_COLOUR = 0.1  # of colours 0…1
_TILE = 32, 64  # rows and columns worked on at once


class JointBilateral(LinearUpsampler):
    """The upsampler of this module."""

    def value_strips(
        self, values: Tensor, features: Tensor, guide: Tensor, size: Size
    ) -> Iterator[Tensor]:
        return joint_bilateral_strips(values.float(), fit_guide(guide, size))


def joint_bilateral_strips(
    values: Tensor,
    guide: Tensor,
    *,
    radius: int = RADIUS,
    sigma_space: float = SIGMA_SPACE,
    sigma_colour: float = SIGMA_COLOUR,
) -> Iterator[Tensor]:
    """Upsample values to the guide, strip by strip.

    Args:
        values: (B, V, h, w).
        guide: (B, 3, H, W), colours 0…1. A cell's colour is the mean over its pixels.
        radius: cells to each side that a pixel mixes.
        sigma_space: deviation of the spatial Gaussian, cells.
        sigma_colour: deviation of the Gaussian of the colour distance.

    Yields:
        (B, V, rows, W), from top to bottom.
    """
    height, width = guide.shape[2:]
    colours = F.adaptive_avg_pool2d(guide, values.shape[2:]) / sigma_colour
    for top in range(0, height, _TILE[0]):
        rows = slice(top, min(top + _TILE[0], height))
        first_row, near_row = _nearness(rows, height, values.shape[2], radius, sigma_space)
        parts = []
        for left in range(0, width, _TILE[1]):
            columns = slice(left, min(left + _TILE[1], width))
            first, near = _nearness(columns, width, values.shape[3], radius, sigma_space)
            cells = (
                ...,
                slice(first_row, first_row + near_row.shape[1]),
                slice(first, first + near.shape[1]),
            )
            near = (near_row[:, None, :, None] + near[None, :, None, :]).to(guide.device)
            weights = _weights(guide[:, :, rows, columns] / sigma_colour, colours[cells], near)
            mixed = values[cells].flatten(2) @ weights.to(values.dtype)  # (B, V, r·c)
            parts.append(mixed.unflatten(2, (rows.stop - rows.start, -1)))
        yield torch.cat(parts, dim=3)


def _nearness(
    pixels: slice, length: int, cells: int, radius: int, sigma: float
) -> tuple[int, Tensor]:
    """First cell that some of the pixels of an axis see, and log weights (pixels, cells seen)."""
    position = (torch.arange(pixels.start, pixels.stop) + 0.5) * cells / length - 0.5
    nearest = position.round().clamp(0, cells - 1)
    first = max(0, int(nearest[0]) - radius)
    seen = torch.arange(first, min(cells, int(nearest[-1]) + radius + 1))
    weight = -((seen - position[:, None]) ** 2) / (2 * sigma**2)
    return first, weight.masked_fill((seen - nearest[:, None]).abs() > radius, -torch.inf)


def _weights(pixels: Tensor, cells: Tensor, near: Tensor) -> Tensor:
    """Weights (B, m·n, r·c) of cells for pixels, summing to 1 over the cells.

    Args:
        pixels: (B, 3, r, c), colours over their deviation.
        cells: (B, 3, m, n), likewise.
        near: (r, c, m, n), logarithms of the spatial weights.
    """
    # Of |p - c|² only -2·p·c + |c|² differs between cells, and a softmax sees no more than that;
    # seen from the mean colour, so that little is lost to rounding.
    centre = cells.mean((2, 3), keepdim=True)
    pixels, cells = (pixels - centre).flatten(2), (cells - centre).flatten(2).transpose(1, 2)
    squares = cells.square().sum(2, keepdim=True) / 2  # (B, m·n, 1)
    near = near.flatten(2).flatten(0, 1).T
    # A softmax, for a colour that no cell has would make all weights zero.
    return torch.baddbmm(near - squares, cells, pixels).softmax(dim=1)
