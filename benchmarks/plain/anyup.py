"""AnyUp, computed plainly: every pixel at full width at once, and the whole attention matrix.

What the published code computes, written with the model's own modules. Slow and large by intent:
`benchmarks/upsamplers.py` and the tests compare with it.

Shapes: B batch, C channels, V channels of the values, d width, h w low-resolution grid, H W image,
H' W' output.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from models.anyup.network import AnyUp, window_bounds


def plain_anyup(
    anyup: AnyUp, image: Tensor, features: Tensor, size: tuple[int, int] | None = None
) -> Tensor:
    """(B, 3, H, W) normalised, (B, C, h, w) -> (B, C, H', W')."""
    size = tuple(image.shape[2:]) if size is None else size
    grid = tuple(features.shape[2:])
    encoded = anyup.rope(anyup.image_encoder(image))
    queries = F.adaptive_avg_pool2d(anyup.query_encoder(encoded), size)
    keys = F.adaptive_avg_pool2d(anyup.key_encoder(encoded), grid)
    seen = anyup.key_features_encoder(F.normalize(features, dim=1))
    keys = anyup.aggregation(torch.cat([keys, seen], dim=1))
    queries = anyup.cross_decode.conv2d(queries)

    attention = anyup.cross_decode.cross_attn
    queries = attention.norm_q(queries.flatten(2).transpose(1, 2))  # (B, H'·W', d)
    keys = attention.norm_k(keys.flatten(2).transpose(1, 2))  # (B, h·w, d)
    (row, row_end), (column, column_end) = (
        window_bounds(pixels, cells).unbind(1) for pixels, cells in zip(size, grid, strict=True)
    )
    sees_row, sees_column = (
        (first[:, None] <= torch.arange(cells)) & (torch.arange(cells) < end[:, None])
        for first, end, cells in ((row, row_end, grid[0]), (column, column_end, grid[1]))
    )
    sees = sees_row[:, None, :, None] & sees_column[:, None, :]  # (H', W', h, w)
    hidden = ~sees.flatten(2).flatten(0, 1).to(queries.device)
    weights = attention.attention(queries, keys, keys, attn_mask=hidden)[1]  # (B, H'·W', h·w)
    mixed = weights @ features.flatten(2).transpose(1, 2)
    return mixed.transpose(1, 2).unflatten(2, size)
