"""The guided filter (He, Sun & Tang, ECCV 2010), as an upsampler, without training.

Around every pixel the values are fitted by a linear function of the guide's colours (eq. 5, and
the matrix form of its section on colour); the pixel takes the mean of all fits that hold it. Edges
of the guide become edges of the values.

Shapes: B batch, V channels, h w low-resolution grid, H W pixels of the guide.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from .strips import resized_rows

REACH = 1.0  # radius of the windows, cells
EPS = 1e-3  # smoothness: colours 0…1 that vary less than its root are taken for flat
_STRIP_RADII = 8  # rows filtered at once, beside a halo of four radii
_CHANNELS = 8  # likewise


def guided_filter(guide: Tensor, values: Tensor, radius: int, eps: float = EPS) -> Tensor:
    """Filter values at the guide's own size.

    Args:
        guide: (B, 3, H, W), colours 0…1.
        values: (B, V, H, W).
        radius: of the square windows, pixels; a window at the border is the part inside.
        eps: weight that keeps the fits flat.

    Returns:
        (B, V, H, W).
    """
    mean = _box(guide, radius)
    products = _box((guide[:, :, None] * guide[:, None]).flatten(1, 2), radius)
    spread = products.unflatten(1, (3, 3)) - mean[:, :, None] * mean[:, None]  # (B, 3, 3, H, W)
    ridge = eps * torch.eye(3, device=guide.device, dtype=guide.dtype)
    inverse = torch.linalg.inv(spread.permute(0, 3, 4, 1, 2) + ridge).permute(0, 3, 4, 1, 2)
    filtered = []
    for part in values.split(_CHANNELS, dim=1):
        part_mean = _box(part, radius)
        joint = _box((part[:, :, None] * guide[:, None]).flatten(1, 2), radius)
        joint = joint.unflatten(1, (-1, 3)) - part_mean[:, :, None] * mean[:, None]
        slope = torch.stack([(row[:, None] * joint).sum(2) for row in inverse.unbind(1)], dim=2)
        offset = part_mean - (slope * mean[:, None]).sum(2)
        slope = _box(slope.flatten(1, 2), radius).unflatten(1, (-1, 3))
        filtered.append((slope * guide[:, None]).sum(2) + _box(offset, radius))
    return torch.cat(filtered, dim=1)


def guided_filter_strips(
    values: Tensor, guide: Tensor, *, reach: float = REACH, eps: float = EPS
) -> Iterator[Tensor]:
    """Enlarge values bilinearly to the guide and filter them, strip by strip.

    Args:
        values: (B, V, h, w).
        guide: (B, 3, H, W), colours 0…1.
        reach: radius of the windows, in low-resolution cells.
        eps: see `guided_filter`.

    Yields:
        (B, V, rows, W), from top to bottom; together `guided_filter` of the whole.
    """
    height, width = guide.shape[2:]
    cell = max(height / values.shape[2], width / values.shape[3])
    radius = max(1, round(reach * cell))
    rows = _STRIP_RADII * radius
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        # Two boxes reach two radii; what a cut spoils lies further out than that.
        first, last = max(0, top - 2 * radius), min(height, bottom + 2 * radius)
        enlarged = resized_rows(values, (height, width), "bilinear", first, last)
        filtered = guided_filter(guide[:, :, first:last], enlarged, radius, eps)
        yield filtered[:, :, top - first : bottom - first]


def _box(x: Tensor, radius: int) -> Tensor:
    """Mean over the part of each (2·radius + 1)² window that lies inside the image."""
    for dim in (2, 3):
        inside = torch.ones_like(x[:1, :1].narrow(5 - dim, 0, 1))
        x = _window_sums(x, radius, dim) / _window_sums(inside, radius, dim)
    return x


def _window_sums(x: Tensor, radius: int, dim: int) -> Tensor:
    """Sums over windows along one axis, zeros outside.

    Of sums of 1, 2, 4, … neighbours, as the length's binary digits say: few additions, and none of
    the rounding of differences of running sums.
    """
    padding = [radius, radius, 0, 0] if dim == 3 else [0, 0, radius, radius]
    count, length = x.shape[dim], 2 * radius + 1
    sums, span, start, total = F.pad(x, padding), 1, 0, 0.0
    while True:
        if length & span:
            total = total + sums.narrow(dim, start, count)
            start += span
        if 2 * span > length:
            return total
        rest = sums.shape[dim] - span
        sums = sums.narrow(dim, 0, rest) + sums.narrow(dim, span, rest)
        span *= 2
