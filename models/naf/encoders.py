"""NAF's two image encoders, 1×1 and 3×3 convolutions with group norms, and its rotary embedding.

The modules' own `forward` is the plain computation, which learns. `encode_into` and `Rope.over`
compute the same without gradients in one map of the image, overwriting it a few rows at a time.

Shapes: B batch, e width of one encoder, H W pixels; n heads of d channels each.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..strips import measured_norm

GROUPS = 8
_PERIOD = 100.0  # base of the rotary periods
_CHUNK_PIXELS = 4096  # of the whole batch, worked on at once: they stay in the processor's cache


def encoder(width: int, kernel: int) -> nn.Sequential:
    """Colours (B, 3, H, W) -> (B, e, H, W)."""
    return nn.Sequential(
        _convolution(3, width, kernel), ConvBlock(width, kernel), ConvBlock(width, kernel)
    )


def encode_into(out: Tensor, encoder: nn.Sequential, image: Tensor) -> None:
    """Write an encoder's answer to an image into `out` (B, e, H, W), which holds nothing yet."""
    first, *blocks = encoder
    assert isinstance(first, nn.Conv2d)
    for top, bottom in _row_bounds(out):
        halo = first.kernel_size[0] // 2
        seen = image[:, :, max(0, top - halo) : bottom + halo]
        out[:, :, top:bottom] = _convolve(first, seen, top == 0, bottom == out.shape[2])
    for block in blocks:
        assert isinstance(block, ConvBlock)
        _replace(out, block.norm1, block.conv1)
        _replace(out, block.norm2, block.conv2)


class ConvBlock(nn.Module):
    """Norm, SiLU, convolution, twice; nothing is added back."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, width)
        self.conv1 = _convolution(width, width, kernel)
        self.norm2 = nn.GroupNorm(GROUPS, width)
        self.conv2 = _convolution(width, width, kernel)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(F.silu(self.norm1(x)))
        return self.conv2(F.silu(self.norm2(x)))


class Rope(nn.Module):
    """Rotary embedding of pixel centres, each axis -1…1 over the image."""

    periods: Tensor

    def __init__(self, width: int) -> None:
        """`width` is d, a multiple of 4: rows and columns, each as cosine and sine."""
        super().__init__()
        exponents = torch.arange(width // 4) * 4 / width
        self.register_buffer("periods", _PERIOD**exponents)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n·d, H, W), turned by its positions."""
        return self._turned(x, _centres(x.shape[2], x), _centres(x.shape[3], x))

    def over(self, x: Tensor) -> None:
        """The same, overwriting `x`."""
        row, column = _centres(x.shape[2], x), _centres(x.shape[3], x)
        for top, bottom in _row_bounds(x):
            part = x[:, :, top:bottom]
            part.copy_(self._turned(part, row[top:bottom], column))

    def _turned(self, x: Tensor, row: Tensor, column: Tensor) -> Tensor:
        frequencies = 2 * math.pi / self.periods[:, None]  # (d / 4, 1)
        down = (frequencies * row)[:, :, None].expand(-1, -1, len(column))
        across = (frequencies * column)[:, None, :].expand(-1, len(row), -1)
        angles = torch.cat([down, across, down, across])  # (d, rows, W)
        heads = x.unflatten(1, (-1, len(angles)))
        first, second = heads.chunk(2, dim=2)
        turned = heads * angles.cos() + torch.cat([-second, first], dim=2) * angles.sin()
        return turned.flatten(1, 2)


def _convolution(channels: int, width: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(channels, width, kernel, padding=kernel // 2, padding_mode="reflect")


def _centres(pixels: int, like: Tensor) -> Tensor:
    return (torch.arange(pixels, device=like.device) + 0.5) / pixels * 2 - 1


def _row_bounds(x: Tensor) -> list[tuple[int, int]]:
    """First row and the one after the last of every chunk of x, each of two rows or more."""
    height = x.shape[2]
    rows = max(2, _CHUNK_PIXELS // (len(x) * x.shape[3]))
    tops = range(0, max(1, height - 1), rows)  # no last chunk of a single row, without a mirror
    return [(top, height if top == tops[-1] else top + rows) for top in tops]


def _replace(x: Tensor, norm: nn.GroupNorm, convolution: nn.Conv2d) -> None:
    """Put the convolution of the normed x in its place, from top to bottom."""
    bounds, halo = _row_bounds(x), convolution.kernel_size[0] // 2
    normed = measured_norm(norm, [x[:, :, top:bottom] for top, bottom in bounds])
    above = x[:, :, :0]  # rows that the chunk before has overwritten
    for top, bottom in bounds:
        seen = torch.cat([above, x[:, :, top : bottom + halo]], dim=2)
        above = x[:, :, bottom - halo : bottom].clone()
        x[:, :, top:bottom] = _convolve(
            convolution, F.silu(normed(seen)), top == 0, bottom == x.shape[2]
        )


def _convolve(convolution: nn.Conv2d, x: Tensor, is_top: bool, is_bottom: bool) -> Tensor:
    """Whole rows, mirrored at the sides and where the image ends."""
    halo = convolution.kernel_size[0] // 2
    if halo:
        x = F.pad(x, (halo, halo, halo * is_top, halo * is_bottom), mode="reflect")
    return F.conv2d(x, convolution.weight, convolution.bias)
