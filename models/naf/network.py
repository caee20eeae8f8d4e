"""NAF: features of any backbone, upsampled by neighbourhood attention to the image.

Chambon et al., "NAF: Zero-Shot Feature Upsampling via Neighborhood Attention Filtering",
arXiv:2511.18452. Queries come from the image alone, keys are their means over the cells, values are
the low-resolution features as they are: head by head, every pixel is a convex mix of the 9×9 cells
around it. The heads mix by different weights, each its own quarter of the channels, so upsampling
word scores is not the same as scoring what was upsampled. Module names follow the official
checkpoint, which loads strictly.

Shapes: B batch, C feature channels, n heads, h w low-resolution grid, H W pixels of the image,
H' W' pixels of the output.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..strips import assemble, learns
from .encoders import GROUPS, Rope, encode_into, encoder

HEADS = 4
WINDOW = 9  # neighbours that a pixel sees along each axis
_SHRINK = 4  # the image is looked at in at most so many times the output's resolution


class NAF(nn.Module):
    """The upsampler; `load_state_dict` takes the official dict (`dim` 256)."""

    tile = (32, 64)  # rows and columns of queries that attend at once

    def __init__(self, dim: int = 256) -> None:
        """`dim` is the width of queries and keys, a multiple of 16.

        Half of it is each encoder's, in 8 groups; a quarter each head's, in four of the rotation.
        """
        super().__init__()
        if dim < 1 or dim % (2 * GROUPS):
            raise ValueError(f"NAF needs a positive multiple of {2 * GROUPS} as dim, got {dim}")
        self.image_encoder = _ImageEncoder(dim)

    def forward(
        self, image: Tensor, features: Tensor, output_size: tuple[int, int] | None = None
    ) -> Tensor:
        """Upsample `features` to `output_size`, guided by the image.

        Args:
            image: (B, 3, H, W), normalised by ImageNet's mean and deviation; H, W ≥ 2.
            features: (B, C, h, w), as the backbone gives them; C a multiple of 4. Where the grid
                has fewer than 9 cells along an axis, all of them are seen; the published code
                refuses such grids.
            output_size: (H', W'); None is the image's size.

        Returns:
            (B, C, H', W'), in the space of the features.
        """
        height, width = image.shape[2:] if output_size is None else output_size
        return assemble(self.strips(image, features, (height, width)), height)

    def strips(self, image: Tensor, features: Tensor, size: tuple[int, int]) -> Iterator[Tensor]:
        """`forward` in strips (B, C, rows, W') from top to bottom.

        Without gradients, one map of `dim` channels of the image is held beside a strip.
        """
        _check(image, features, size)
        queries = self.image_encoder(image, size)
        keys = F.adaptive_avg_pool2d(queries, (features.shape[2], features.shape[3]))
        keys, values = (x.unflatten(1, (HEADS, -1)) for x in (keys, features))
        rows, columns = (
            cells_seen(*axis).to(image.device)
            for axis in zip(size, features.shape[2:], strict=True)
        )
        for top in range(0, size[0], self.tile[0]):
            down = slice(top, top + self.tile[0])
            parts = []
            for left in range(0, size[1], self.tile[1]):
                across = slice(left, left + self.tile[1])
                tile = queries[:, :, down, across]
                parts.append(attend(tile, keys, values, rows[down], columns[across]))
            yield torch.cat(parts, dim=3)


class _ImageEncoder(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.encoder = encoder(dim // 2, 1)
        self.sem_encoder = encoder(dim // 2, 3)
        self.rope = Rope(dim // HEADS)

    def forward(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, 3, H, W) -> queries (B, dim, H', W')."""
        height, width = (
            min(side, _SHRINK * out) for side, out in zip(image.shape[2:], size, strict=True)
        )
        if (height, width) != tuple(image.shape[2:]):
            image = F.interpolate(image, (height, width), mode="bilinear")
        if learns(self, image):
            parts = [self.encoder(image), self.sem_encoder(image)]
            return self.rope(F.adaptive_avg_pool2d(torch.cat(parts, dim=1), size))
        found = image.new_empty(len(image), self.dim, *size)
        for half, part in zip((self.encoder, self.sem_encoder), found.chunk(2, 1), strict=True):
            if size == (height, width):
                encode_into(part, half, image)
            else:
                encoded = image.new_empty(len(image), self.dim // 2, height, width)
                encode_into(encoded, half, image)
                part.copy_(F.adaptive_avg_pool2d(encoded, size))
        self.rope.over(found)
        return found


def cells_seen(pixels: int, cells: int) -> Tensor:
    """How often every pixel of an axis sees every cell, (pixels, cells) float32.

    A pixel's neighbours stand a cell's length (rounded down to pixels) apart: nine of its own
    residue class, itself in the middle, moved inside at the ends (NATTEN's rule); all, where there
    are no nine. Each stands for the cell it lies in. With a whole number of pixels per cell these
    are nine cells, once each; otherwise some are seen twice or left out.
    """
    dilation = max(1, pixels // cells)
    index = torch.arange(pixels) // dilation
    residue = torch.arange(pixels) % dilation
    count = (pixels - residue + dilation - 1) // dilation  # pixels of that residue class
    first = torch.minimum(index - WINDOW // 2, count - WINDOW).clamp_min(0)
    steps = first[:, None] + torch.arange(WINDOW)
    inside = steps < count[:, None]
    neighbours = (residue[:, None] + dilation * steps).clamp_max(pixels - 1)
    # The same rounding as when a map of cells is resized.
    cell = F.interpolate(torch.arange(cells).float()[None, None], pixels, mode="nearest-exact")
    seen = torch.zeros(pixels, cells)
    return seen.scatter_add_(1, cell[0, 0].long()[neighbours], inside.float())


def attend(queries: Tensor, keys: Tensor, values: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Mix the values for one tile of queries.

    Args:
        queries: (B, n·d, r, c).
        keys: (B, n, d, h, w).
        values: (B, n, C / n, h, w).
        rows, columns: (r, h) and (c, w), see `cells_seen`.

    Returns:
        (B, C, r, c).
    """
    size = queries.shape[2:]
    # Only cells that some query of the tile sees.
    down, across = rows.any(0).nonzero()[:, 0], columns.any(0).nonzero()[:, 0]
    down, across = (slice(int(x[0]), int(x[-1]) + 1) for x in (down, across))
    keys, values = (x[:, :, :, down, across].flatten(3) for x in (keys, values))
    times = rows[:, None, down, None] * columns[None, :, None, across]
    queries = queries.unflatten(1, (HEADS, -1)).flatten(3).transpose(2, 3)  # (B, n, r·c, d)
    logits = queries @ keys * keys.shape[2] ** -0.5
    # A cell seen twice has twice the weight, one not seen none.
    weights = (logits + times.flatten(2).flatten(0, 1).log()).softmax(dim=3)
    mixed = values @ weights.to(values.dtype).transpose(2, 3)  # (B, n, C / n, r·c)
    return mixed.flatten(1, 2).unflatten(2, size)


def _check(image: Tensor, features: Tensor, size: tuple[int, int]) -> None:
    if features.ndim != 4 or 0 in features.shape or features.shape[1] % HEADS:
        raise ValueError(
            f"features must have shape (B, C, h, w) with C a multiple of {HEADS}, got "
            f"{tuple(features.shape)}"
        )
    expected = (features.shape[0], 3)
    if image.ndim != 4 or tuple(image.shape[:2]) != expected or min(image.shape[2:]) < 2:
        raise ValueError(
            f"image must have shape ({features.shape[0]}, 3, H, W) with H, W ≥ 2, got "
            f"{tuple(image.shape)}"
        )
    if min(size) < 1:
        raise ValueError(f"output_size must be (H', W') of at least 1, got {tuple(size)}")
