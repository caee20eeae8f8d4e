"""Joint bilateral and guided filter, computed plainly: the formulas for the whole image at once.

Shapes: B batch, V channels of the values, h w low-resolution grid, H W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from models.upsamplers.guided_filter import EPS, REACH
from models.upsamplers.joint_bilateral import RADIUS, SIGMA_COLOUR, SIGMA_SPACE


def plain_joint_bilateral(values: Tensor, guide: Tensor) -> Tensor:
    """Kopf's formula for all pixels and patches at once, (B, V, h, w) -> (B, V, H, W)."""
    sizes = tuple(zip(guide.shape[2:], values.shape[2:], strict=True))
    position = [(torch.arange(n) + 0.5) * cells / n - 0.5 for n, cells in sizes]
    offset = [
        p[:, None] - torch.arange(cells) for p, (_, cells) in zip(position, sizes, strict=True)
    ]
    near = [
        (p.round().clamp(0, cells - 1)[:, None] - torch.arange(cells)).abs() <= RADIUS
        for p, (_, cells) in zip(position, sizes, strict=True)
    ]
    space = offset[0][:, None, :, None] ** 2 + offset[1][:, None, :] ** 2  # (H, W, h, w)
    inside = near[0][:, None, :, None] & near[1][:, None, :]
    cells = F.adaptive_avg_pool2d(guide, values.shape[2:])
    colour = (guide[..., None, None] - cells[:, :, None, None]).square().sum(1)  # (B, H, W, h, w)
    weights = torch.exp(-space / (2 * SIGMA_SPACE**2) - colour / (2 * SIGMA_COLOUR**2)) * inside
    mixed = torch.einsum("byxij,bvij->bvyx", weights, values)
    return mixed / weights.sum((3, 4))[:, None]


def plain_guided_filter(values: Tensor, guide: Tensor) -> Tensor:
    """He's colour guided filter of bilinearly upsampled values, (B, V, h, w) -> (B, V, H, W)."""
    size = tuple(guide.shape[2:])
    radius = max(1, round(REACH * max(size[0] / values.shape[2], size[1] / values.shape[3])))

    def box(x: Tensor) -> Tensor:
        for kernel, padding in (((2 * radius + 1, 1), (radius, 0)), ((1, 2 * radius + 1),
                                                                     (0, radius))):  # fmt: skip
            x = F.avg_pool2d(x, kernel, 1, padding, count_include_pad=False)
        return x

    values = F.interpolate(values, size, mode="bilinear")
    mean, mean_guide = box(values), box(guide)
    squares = box((guide[:, :, None] * guide[:, None]).flatten(1, 2)).unflatten(1, (3, 3))
    covariance = squares - mean_guide[:, :, None] * mean_guide[:, None]  # (B, 3, 3, H, W)
    inverse = torch.linalg.inv(covariance.permute(0, 3, 4, 1, 2) + EPS * torch.eye(3))
    joint = box((values[:, :, None] * guide[:, None]).flatten(1, 2)).unflatten(1, (-1, 3))
    joint = joint - mean[:, :, None] * mean_guide[:, None]  # (B, V, 3, H, W)
    slope = torch.einsum("byxkl,bvlyx->bvkyx", inverse, joint)
    offset = mean - (slope * mean_guide[:, None]).sum(2)
    slope = box(slope.flatten(1, 2)).unflatten(1, (-1, 3))
    return (slope * guide[:, None]).sum(2) + box(offset)
