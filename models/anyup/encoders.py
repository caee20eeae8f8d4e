"""AnyUp's encoders, and how they see a large image without ever holding it at full width.

The image encoders are 1×1 convolutions with group norms: once the norms' means and deviations over
the whole image are known, every pixel stands alone. So an encoded image is a function that makes
rows when asked (`Rows`); each norm is measured in one pass over the rows before it. What fits is
kept between passes, the rest is made again.

Shapes: B batch, d width, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..strips import assemble

GROUPS = 8
_CHUNK_PIXELS = 4096  # of the whole batch, worked on at once: they stay in the processor's cache


class Rows:
    """An image (B, d, H, W) of which rows are made when asked for."""

    def __init__(
        self, make: Callable[[int, int], Tensor], size: tuple[int, int], step: int
    ) -> None:
        """`make(top, bottom)` gives (B, d, bottom - top, W) and is asked for `step` at a time."""
        self._make, self.size, self.step = make, size, step

    @classmethod
    def of(cls, image: Tensor) -> Rows:
        """Those of a tensor (B, d, H, W)."""
        step = max(1, _CHUNK_PIXELS // (len(image) * image.shape[3]))
        return cls(lambda top, bottom: image[:, :, top:bottom], tuple(image.shape[2:]), step)

    def chunks(self, top: int, bottom: int) -> Iterator[Tensor]:
        for start in range(top, bottom, self.step):
            yield self._make(start, min(start + self.step, bottom))

    def __iter__(self) -> Iterator[Tensor]:
        return self.chunks(0, self.size[0])

    def __call__(self, top: int, bottom: int) -> Tensor:
        """Rows top…bottom-1, (B, d, bottom - top, W)."""
        return assemble(self.chunks(top, bottom), bottom - top)

    def then(self, function: Callable[[Tensor], Tensor]) -> Rows:
        """After a function that treats every pixel alone."""
        make = self._make
        return Rows(lambda top, bottom: function(make(top, bottom)), self.size, self.step)

    def kept(self, elements: int) -> Rows:
        """The same, made once and for all if it has at most so many elements."""
        first = self._make(0, 1)
        if first.numel() * self.size[0] > elements:
            return self
        return Rows.of(self(0, self.size[0]))


def encoder(first: nn.Module, width: int) -> nn.Sequential:
    """`first`, then two blocks; the module itself is the plain computation."""
    return nn.Sequential(first, ResBlock(width), ResBlock(width))


def encode(plain: nn.Sequential, rows: Rows, keep: int) -> Rows:
    """An `encoder` that begins with a 1×1 convolution, over rows.

    Args:
        plain: the encoder.
        rows: what it sees.
        keep: elements that may be kept, of one image before a block.
    """
    first, *blocks = plain
    rows = rows.then(lambda x: _pointwise(first, x))
    for block in blocks:
        rows = block.over(rows.kept(keep))
    return rows


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

    def over(self, rows: Rows) -> Rows:
        """The same over rows; goes through them twice to know the norms."""
        first, _, before, second, _, after = self.block
        normed = _measured(first, rows)

        def inner(x: Tensor) -> Tensor:
            return _pointwise(before, F.silu(normed(x)))

        inner_normed = _measured(second, map(inner, rows))
        return rows.then(lambda x: x + _pointwise(after, F.silu(inner_normed(inner(x)))))


def _pointwise(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A 1×1 convolution without bias, (B, d, rows, W) -> (B, d', rows, W)."""
    return (conv.weight.flatten(1) @ x.flatten(2)).unflatten(2, x.shape[2:])


def _measured(norm: nn.GroupNorm, parts: Iterable[Tensor]) -> Callable[[Tensor], Tensor]:
    """The norm as an affine function, for all parts (B, d, rows, W) together."""
    moments, counts = [], []
    for part in parts:
        grouped = part.float().unflatten(1, (norm.num_groups, -1)).flatten(2)
        moments.append(torch.stack(torch.var_mean(grouped, dim=2, correction=0)))
        counts.append(grouped.shape[2])
    variances, means = torch.stack(moments, dim=1)  # (parts, B, groups) each
    shares = torch.tensor(counts, device=means.device, dtype=means.dtype)[:, None, None]
    shares = shares / sum(counts)
    mean = (shares * means).sum(0)
    variance = (shares * (variances + (means - mean).square())).sum(0)
    each = norm.num_channels // norm.num_groups
    mean, deviation = (
        value.repeat_interleave(each, dim=1) for value in (mean, (variance + norm.eps).sqrt())
    )
    scale = norm.weight / deviation
    shift = norm.bias - mean * scale
    scale, shift = scale[..., None, None], shift[..., None, None]  # (B, d, 1, 1)
    return lambda x: torch.addcmul(shift, x, scale)


class Rope(nn.Module):
    """Rotary embedding of pixel positions (row, column), each 0…1 over the image."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.freqs = nn.Parameter(torch.randn(2, width))

    def forward(self, x: Tensor) -> Tensor:
        return self._turned(x, 0, x.shape[2])

    def over(self, rows: Rows) -> Rows:
        """The same over rows."""
        height = rows.size[0]
        return Rows(
            lambda top, bottom: self._turned(rows(top, bottom), top, height), rows.size, rows.step
        )

    def _turned(self, x: Tensor, top: int, height: int) -> Tensor:
        """Rows from `top` on of an image of that height."""
        count, width = x.shape[2:]
        row = torch.linspace(0, 1, height, device=x.device)[top : top + count]
        column = torch.linspace(0, 1, width, device=x.device)
        frequencies = self.freqs[..., None, None]  # (2, d, 1, 1)
        angles = frequencies[0] * row[:, None] + frequencies[1] * column  # (d, rows, W)
        first, second = x.chunk(2, dim=1)
        return x * angles.cos() + torch.cat([-second, first], dim=1) * angles.sin()


def pooled(rows: Rows, size: tuple[int, int]) -> Rows:
    """`F.adaptive_avg_pool2d` of rows."""
    if rows.size == size:
        return rows
    height = rows.size[0]
    narrow = rows.then(lambda x: F.adaptive_avg_pool2d(x, (x.shape[2], size[1])))

    def make(top: int, bottom: int) -> Tensor:
        starts = torch.arange(top, bottom) * height // size[0]
        ends = -(-torch.arange(top + 1, bottom + 1) * height // size[0])
        first, last = int(starts[0]), int(ends[-1])
        row = torch.arange(first, last)
        shares = (starts[:, None] <= row) & (row < ends[:, None])
        shares = shares / shares.sum(1, keepdim=True)
        source = narrow(first, last)
        return shares.to(source) @ source

    return Rows(make, size, 1 if size[0] < height else rows.step)
