"""AnyUp: features of any backbone, upsampled by attention to the image that guides them.

Wimmer et al., "AnyUp: Universal Feature Upsampling", arXiv:2510.12764. Queries come from the
image, keys from the image and from what a set of learned filters says of each feature channel, so
that no weight depends on the number of channels. The values are the low-resolution features as they
are: every pixel is a convex mix of the cells in a window around it. Module names follow the
official checkpoints, which load strictly.

Shapes: B batch, C feature channels, V channels of the values, d width of queries and keys, n
heads, h w low-resolution grid, H W pixels of the guide, H' W' pixels of the output.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..strips import assemble
from .encoders import GROUPS, Rope, encode, encoder

HEADS = 4
WINDOW = 0.1  # reach of a query to each side, as a share of the image's side
_FILTER = 5  # side of the learned filters, cells


class AnyUp(nn.Module):
    """The upsampler; `load_state_dict` takes the official dict (`qk_dim` 128)."""

    tile = (32, 64)  # rows and columns of queries that attend at once
    copied = (
        2**25
    )  # elements of the encoded image (128 MiB) up to which it is copied, not made anew

    def __init__(self, qk_dim: int = 128) -> None:
        """`qk_dim` is d, a multiple of the 8 groups of its norms."""
        super().__init__()
        if qk_dim < 1 or qk_dim % GROUPS:
            raise ValueError(f"AnyUp needs a positive multiple of {GROUPS} as qk_dim, got {qk_dim}")
        self.image_encoder = encoder(nn.Conv2d(3, qk_dim, 1, bias=False), qk_dim)
        self.key_encoder = encoder(nn.Conv2d(qk_dim, qk_dim, 1, bias=False), qk_dim)
        self.query_encoder = encoder(nn.Conv2d(qk_dim, qk_dim, 1, bias=False), qk_dim)
        self.key_features_encoder = encoder(_FilterResponses(qk_dim), qk_dim)
        self.cross_decode = _CrossDecode(qk_dim)
        self.aggregation = encoder(_ReflectConv(2 * qk_dim, qk_dim, 3, bias=False), qk_dim)
        self.rope = Rope(qk_dim)

    def forward(
        self, image: Tensor, features: Tensor, output_size: tuple[int, int] | None = None
    ) -> Tensor:
        """Upsample `features` to `output_size`, guided by the image.

        Args:
            image: (B, 3, H, W), normalised by ImageNet's mean and deviation.
            features: (B, C, h, w), as the backbone gives them.
            output_size: (H', W'); None is the image's size.

        Returns:
            (B, C, H', W'), in the space of the features.
        """
        height, width = image.shape[2:] if output_size is None else output_size
        size = (height, width)
        return assemble(self.strips(features, image, features, size), size[0])

    def strips(
        self, values: Tensor, image: Tensor, features: Tensor, size: tuple[int, int]
    ) -> Iterator[Tensor]:
        """Upsample any values by the weights that image and features give.

        What is mixed has no say in the weights, so word scores of the features can be upsampled
        instead of the features: the scores of the mix are the mix of the scores.

        Args:
            values: (B, V, h, w), on the grid of the features.
            image, features: as in `forward`.
            size: (H', W').

        Yields:
            (B, V, rows, W'), from top to bottom.
        """
        _check(values, image, features)
        queries, keys = self._queries_and_keys(image, features, size)
        rows = window_bounds(size[0], features.shape[2])
        columns = window_bounds(size[1], features.shape[3])
        for top in range(0, size[0], self.tile[0]):
            tile_rows = slice(top, min(top + self.tile[0], size[0]))
            strip = self.cross_decode.query_rows(queries, tile_rows)
            parts = []
            for left in range(0, size[1], self.tile[1]):
                tile_columns = slice(left, min(left + self.tile[1], size[1]))
                tile = strip[:, :, :, tile_columns]
                bounds = rows[tile_rows], columns[tile_columns]
                parts.append(self.cross_decode.attend(tile, keys, values, *bounds))
            yield torch.cat(parts, dim=3)

    def _queries_and_keys(
        self, image: Tensor, features: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Queries (B, d, H', W') before their convolution, projected keys (B, n, h, w, d / n)."""
        encoded = self._encoded(image)
        copy = encoded.clone() if encoded.numel() <= self.copied else None
        grid = (features.shape[2], features.shape[3])
        keys = F.adaptive_avg_pool2d(encode(self.key_encoder, encoded), grid)
        del encoded  # overwritten
        seen = self.key_features_encoder(F.normalize(features, dim=1))
        keys = self.aggregation(torch.cat([keys, seen], dim=1))
        queries = encode(self.query_encoder, self._encoded(image) if copy is None else copy)
        if size != tuple(queries.shape[2:]):
            queries = F.adaptive_avg_pool2d(queries, size)
        return queries, self.cross_decode.project_keys(keys)

    def _encoded(self, image: Tensor) -> Tensor:
        return self.rope.over(encode(self.image_encoder, image))


def window_bounds(pixels: int, cells: int) -> Tensor:
    """First cell and the one after the last that every pixel of an axis sees: (pixels, 2) int64."""
    centres = (torch.arange(pixels, dtype=torch.float32) + 0.5) / pixels
    first = ((centres - WINDOW).clamp(0, 1) * cells).floor()
    end = ((centres + WINDOW).clamp(0, 1) * cells).ceil()
    return torch.stack([first, end], dim=1).long()


def _check(values: Tensor, image: Tensor, features: Tensor) -> None:
    if features.ndim != 4 or 0 in features.shape:
        raise ValueError(f"features must have shape (B, C, h, w), got {tuple(features.shape)}")
    if image.ndim != 4 or image.shape[1] != 3 or image.shape[0] != features.shape[0]:
        raise ValueError(
            f"image must have shape ({features.shape[0]}, 3, H, W), got {tuple(image.shape)}"
        )
    if values.ndim != 4 or (len(values), *values.shape[2:]) != (len(features), *features.shape[2:]):
        raise ValueError(
            f"values must lie on the grid of the features {tuple(features.shape)}, got "
            f"{tuple(values.shape)}"
        )


class _ReflectConv(nn.Conv2d):
    """3×3 convolution with reflected borders; a side of one cell, which has no mirror, repeats."""

    def forward(self, input: Tensor) -> Tensor:
        x = F.pad(input, (1, 1, 0, 0), mode="reflect" if input.shape[3] > 1 else "replicate")
        x = F.pad(x, (0, 0, 1, 1), mode="reflect" if x.shape[2] > 1 else "replicate")
        return super().forward(x)


class _FilterResponses(nn.Module):
    """How d learned filters answer to the channels: softmax over answers, mean over channels."""

    chunk_responses = 2**22  # held at once

    def __init__(self, width: int) -> None:
        super().__init__()
        self.basis = nn.Parameter(torch.randn(width, 1, _FILTER, _FILTER))

    def forward(self, features: Tensor) -> Tensor:
        batch, channels, height, width = features.shape
        inside = F.conv2d(
            features.new_ones(1, 1, height, width),
            features.new_ones(1, 1, _FILTER, _FILTER),
            padding=_FILTER // 2,
        )  # taps inside the image, at every cell
        padded = F.pad(features, [_FILTER // 2] * 4)
        filters = len(self.basis)
        rows = max(1, self.chunk_responses // (batch * channels * filters * width))
        means = []
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            part = padded[:, :, top : bottom + _FILTER - 1].flatten(0, 1)[:, None]
            responses = F.conv2d(part, self.basis) / inside[:, :, top:bottom]  # (B·C, d, rows, w)
            # The released models were trained with the list of answers, filters first, *reshaped*,
            # not transposed, from (C, d) to (d, C); the softmax goes over the rows of that table.
            table = responses.reshape(batch, filters, channels, bottom - top, width)
            means.append(table.softmax(dim=1).mean(dim=2))
        return torch.cat(means, dim=2)  # (B, d, h, w)


class _CrossDecode(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv2d = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.cross_attn = _CrossAttention(width)

    def query_rows(self, queries: Tensor, rows: slice) -> Tensor:
        """Those rows of the convolved queries, (B, d, rows, W')."""
        above, below = int(rows.start == 0), int(rows.stop == queries.shape[2])
        seen = queries[:, :, rows.start - 1 + above : rows.stop + 1 - below]
        return F.conv2d(F.pad(seen, (1, 1, above, below)), self.conv2d.weight)

    def project_keys(self, keys: Tensor) -> Tensor:
        """(B, d, h, w) -> (B, n, h, w, d / n)."""
        projected = self.cross_attn.project(self.cross_attn.norm_k(keys.movedim(1, -1)), 1)
        return projected.unflatten(3, (HEADS, -1)).movedim(3, 1)

    def attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, rows: Tensor, columns: Tensor
    ) -> Tensor:
        """Mix the values for one tile of queries.

        Args:
            queries: (B, d, r, c).
            keys: (B, n, h, w, d / n).
            values: (B, V, h, w).
            rows, columns: (r, 2) and (c, 2), see `window_bounds`.

        Returns:
            (B, V, r, c).
        """
        # Only cells that some query of the tile sees; bounds never decrease along an axis.
        top, bottom = int(rows[0, 0]), int(rows[-1, 1])
        left, right = int(columns[0, 0]), int(columns[-1, 1])
        keys = keys[:, :, top:bottom, left:right].flatten(2, 3)  # (B, n, cells, d / n)
        values = values[:, :, top:bottom, left:right].flatten(2).transpose(1, 2)
        cells = torch.arange(top, bottom), torch.arange(left, right)
        sees_row, sees_column = (
            (bounds[:, :1] <= cell) & (cell < bounds[:, 1:])
            for bounds, cell in zip((rows, columns), cells, strict=True)
        )
        sees = sees_row[:, None, :, None] & sees_column[None, :, None, :]  # (r, c, cells' h, w)
        sees = sees.flatten(2).flatten(0, 1).to(queries.device)

        size = queries.shape[2:]
        queries = self.cross_attn.norm_q(queries.flatten(2).transpose(1, 2))
        queries = self.cross_attn.project(queries, 0).unflatten(2, (HEADS, -1)).transpose(1, 2)
        logits = queries @ keys.transpose(2, 3) * keys.shape[3] ** -0.5  # (B, n, r·c, cells)
        weights = logits.masked_fill_(~sees, -torch.inf).softmax(dim=3).mean(dim=1)
        return (weights.to(values.dtype) @ values).transpose(1, 2).unflatten(2, size)


class _RMSNorm(nn.RMSNorm):
    """In its weight's type also where autocast made the input bfloat16: torch fuses it then."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype))


class _CrossAttention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_q = _RMSNorm(width)
        self.norm_k = _RMSNorm(width)
        # Holds the parameters of queries and keys; those of values and output are never used.
        self.attention = nn.MultiheadAttention(width, HEADS, batch_first=True)

    def project(self, x: Tensor, part: int) -> Tensor:
        weight = self.attention.in_proj_weight.chunk(3)[part]
        return F.linear(x, weight, self.attention.in_proj_bias.chunk(3)[part])
