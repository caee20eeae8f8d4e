"""AnyUp's encoders: 1×1 convolutions with group norms, and the rotary embedding after them.

The modules' own `forward` is the plain computation, which learns. `encode` and `Rope.over` compute
the same without gradients in one map of the image, overwriting it chunk by chunk: the plain way
holds several, each 512 MiB for 1024×1024 pixels.

Shapes: B batch, d width, H W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..strips import assemble, learns, measured_norm

GROUPS = 8
_CHUNK_PIXELS = 4096  # of the whole batch, worked on at once: they stay in the processor's cache


def encoder(first: nn.Module, width: int) -> nn.Sequential:
    """`first`, then two blocks."""
    return nn.Sequential(first, ResBlock(width), ResBlock(width))


def encode(encoder: nn.Sequential, x: Tensor) -> Tensor:
    """An `encoder` that begins with a 1×1 convolution, (B, c, H, W) -> (B, d, H, W).

    Overwrites `x` where it has d channels already.
    """
    if learns(encoder, x):
        return encoder(x)
    first, *blocks = encoder
    assert isinstance(first, nn.Conv2d)
    if first.in_channels == first.out_channels:
        for chunk in _chunks(x):
            chunk.copy_(first(chunk))
    else:
        x = assemble(map(first, _chunks(x)), x.shape[2])
    for block in blocks:
        assert isinstance(block, ResBlock)
        block.add_to(x)
    return x


class ResBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.GroupNorm(GROUPS, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 1, bias=False),
            nn.GroupNorm(GROUPS, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) + x

    def add_to(self, x: Tensor) -> None:
        """The same in place. Once the norms are known, every pixel stands alone."""
        first, _, before, second, _, after = self.block
        assert isinstance(first, nn.GroupNorm) and isinstance(second, nn.GroupNorm)
        chunks = _chunks(x)
        normed = measured_norm(first, chunks)

        def inner(chunk: Tensor) -> Tensor:
            return before(F.silu(normed(chunk)))

        inner_normed = measured_norm(second, map(inner, chunks))
        for chunk in chunks:
            chunk += after(F.silu(inner_normed(inner(chunk))))


class Rope(nn.Module):
    """Rotary embedding of pixel positions (row, column), each 0…1 over the image."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.freqs = nn.Parameter(torch.randn(2, width))

    def forward(self, x: Tensor) -> Tensor:
        return self._turned(x, torch.linspace(0, 1, x.shape[2], device=x.device))

    def over(self, x: Tensor) -> Tensor:
        """The same; overwrites `x` unless gradients are needed."""
        if learns(self, x):
            return self(x)
        chunks = _chunks(x)
        rows = torch.linspace(0, 1, x.shape[2], device=x.device).split(chunks[0].shape[2])
        for chunk, row in zip(chunks, rows, strict=True):
            chunk.copy_(self._turned(chunk, row))
        return x

    def _turned(self, x: Tensor, row: Tensor) -> Tensor:
        """Whole rows, whose positions are `row`."""
        column = torch.linspace(0, 1, x.shape[3], device=x.device)
        frequencies = self.freqs[..., None, None]  # (2, d, 1, 1)
        angles = frequencies[0] * row[:, None] + frequencies[1] * column  # (d, rows, W)
        first, second = x.chunk(2, dim=1)
        return x * angles.cos() + torch.cat([-second, first], dim=1) * angles.sin()


def _chunks(x: Tensor) -> tuple[Tensor, ...]:
    """Views of some rows each, (B, d, rows, W)."""
    return x.split(max(1, _CHUNK_PIXELS // (len(x) * x.shape[3])), dim=2)
