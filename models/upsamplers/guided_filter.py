"""The guided filter (He, Sun & Tang, ECCV 2010), as an upsampler, without training.

Around every pixel the values are fitted by a linear function of the guide's colours (eq. 5, and
the matrix form of its section on colour); the pixel takes the mean of all fits that hold it. Edges
of the guide become edges of the values.

Shapes: B batch, V channels, h w low-resolution grid, H W pixels of the guide.
"""

from collections.abc import Iterator

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..strips import resized_rows
from .base import LinearUpsampler, Size, fit_guide

REACH = 1.0  # radius of the square windows, patches; at the border, of the part inside
EPS = 1e-3  # smoothness: colours 0…1 that vary less than its root are taken for flat
_STRIP_RADII = 16  # rows filtered at once, beside a halo of four radii, ...
_STRIP_ELEMENTS = 2**26  # ... fewer where there are many channels
_PIXELS = 2**16  # of all channels filtered at once: four such maps stay in the processor's cache


class GuidedFilter(LinearUpsampler):
    """The upsampler of this module."""

    def value_strips(
        self, values: Tensor, features: Tensor, guide: Tensor, size: Size
    ) -> Iterator[Tensor]:
        return guided_filter_strips(values.float(), fit_guide(guide, size))


def guided_filter_strips(values: Tensor, guide: Tensor) -> Iterator[Tensor]:
    """Upsample values bilinearly to the guide and filter them, strip by strip.

    Args:
        values: (B, V, h, w).
        guide: (B, 3, H, W), colours 0…1.

    Yields:
        (B, V, rows, W), from top to bottom.
    """
    batch, channels = values.shape[:2]
    height, width = guide.shape[2:]
    patch = max(height / values.shape[2], width / values.shape[3])
    radius = max(1, round(REACH * patch))
    most = _STRIP_ELEMENTS // (batch * channels * width)
    rows = min(_STRIP_RADII * radius, max(2 * radius, most))
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        # Two boxes reach two radii; what a cut spoils lies further out than that.
        first, last = max(0, top - 2 * radius), min(height, bottom + 2 * radius)
        strip = guide.new_empty(batch, channels, bottom - top, width)
        for index, image in enumerate(guide[:, :, first:last]):
            fit = _Fit(image, radius)
            for start in range(0, channels, fit.channels):
                group = values[index : index + 1, start : start + fit.channels]
                upsampled = resized_rows(group, (height, width), first, last)[0]
                filtered = fit(upsampled)[:, top - first : bottom - first]
                strip[index, start : start + fit.channels] = filtered
        yield strip


class _Fit:
    """The filter of one guide (3, H, W), for any values.

    The matrices of eq. 5 with colours are kept as factors L·D·Lᵀ: solving by them is as cheap as
    multiplying by the inverse, and rounds less.
    """

    def __init__(self, guide: Tensor, radius: int) -> None:
        self.guide, self.radius = guide, radius
        self.channels = max(1, _PIXELS // guide[0].numel())
        self.share = 1 / _window_sums(torch.ones_like(guide[:1]), radius)[0]  # of each pixel
        self.mean = _window_sums(guide, radius) * self.share
        (a, b, c), (d, e), (f,) = (
            _window_sums(guide[k] * guide[k:], radius) * self.share - self.mean[k] * self.mean[k:]
            for k in range(3)
        )  # the upper triangle of their covariance
        first = a + EPS
        self.b, self.c = b / first, c / first
        second = d + EPS - self.b * b
        rest = e - self.b * c
        self.e = rest / second
        third = f + EPS - self.c * c - self.e * rest
        self.inverses = self.share / torch.stack([first, second, third])  # of D, over pixels

    def __call__(self, values: Tensor) -> Tensor:
        """Filter (V, H, W)."""
        sums = _window_sums(values, self.radius)
        x, y, z = (
            torch.addcmul(_window_sums(values * colour, self.radius), sums, average, value=-1)
            for colour, average in zip(self.guide, self.mean, strict=True)
        )  # covariance with each colour times the window's pixels, and below the slope for it
        y = torch.addcmul(y, self.b, x, value=-1)
        z = torch.addcmul(torch.addcmul(z, self.c, x, value=-1), self.e, y, value=-1)
        x, y, z = x * self.inverses[0], y * self.inverses[1], z * self.inverses[2]
        y = torch.addcmul(y, self.e, z, value=-1)
        x = torch.addcmul(torch.addcmul(x, self.b, y, value=-1), self.c, z, value=-1)

        total = sums * self.share
        for slope, average in zip((x, y, z), self.mean, strict=True):
            total = torch.addcmul(total, slope, average, value=-1)
        total = _window_sums(total, self.radius)
        for slope, colour in zip((x, y, z), self.guide, strict=True):
            total = torch.addcmul(total, _window_sums(slope, self.radius), colour)
        return total * self.share


def _window_sums(x: Tensor, radius: int) -> Tensor:
    """Sums over the part of each (2·radius + 1)² window that lies inside the image (V, H, W)."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or x.requires_grad:
        return _doubled_sums(x, radius)
    maps = x.contiguous().numpy()
    sums, side = np.empty_like(maps), (2 * radius + 1,) * 2
    for one, out in zip(maps, sums, strict=True):  # OpenCV's running sums are float64
        cv2.boxFilter(one, -1, side, out, normalize=False, borderType=cv2.BORDER_CONSTANT)
    return torch.from_numpy(sums)


def _doubled_sums(x: Tensor, radius: int) -> Tensor:
    """The same by any device, with gradients.

    Of sums of 1, 2, 4, … neighbours, as the length's binary digits say: few additions, and none of
    the rounding of differences of running sums.
    """
    for dim in (1, 2):
        count, length = x.shape[dim], 2 * radius + 1
        sums = F.pad(x, [0, 0, radius, radius] if dim == 1 else [radius, radius])
        total, span, start = sums.narrow(dim, 0, count), 1, 1  # the length is odd
        while 2 * span <= length:
            rest = sums.shape[dim] - span
            sums = sums.narrow(dim, 0, rest) + sums.narrow(dim, span, rest)
            span *= 2
            if length & span:
                total = total + sums.narrow(dim, start, count)
                start += span
        x = total
    return x
