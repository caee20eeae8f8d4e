"""NAF, computed plainly: keys and values enlarged to the output, and 81 neighbours of every pixel.

What the published code computes, written with the model's own modules; the attention by its
definition. Slow and large by intent: `benchmarks/speed.py` and the tests compare with it.

Shapes: B batch, C channels, n heads, h w low-resolution grid, H W image, H' W' output.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from models.naf.network import HEADS, NAF, WINDOW


def plain_naf(
    naf: NAF, image: Tensor, features: Tensor, size: tuple[int, int] | None = None
) -> Tensor:
    """(B, 3, H, W) normalised, (B, C, h, w) -> (B, C, H', W')."""
    height, width = size = tuple(image.shape[2:]) if size is None else size
    rows, columns = features.shape[2:]
    smaller = min(image.shape[2], 4 * height), min(image.shape[3], 4 * width)
    image = F.interpolate(image, smaller, mode="bilinear")
    parts = [naf.image_encoder.encoder(image), naf.image_encoder.sem_encoder(image)]
    queries = naf.image_encoder.rope(F.adaptive_avg_pool2d(torch.cat(parts, dim=1), size))
    keys = F.adaptive_avg_pool2d(queries, (rows, columns))
    queries, keys, values = (
        F.interpolate(x, size, mode="nearest-exact").unflatten(1, (HEADS, -1))
        for x in (queries, keys, features)
    )  # (B, n, ·, H', W')
    down = torch.tensor([neighbours(y, height, height // rows) for y in range(height)])
    across = torch.tensor([neighbours(x, width, width // columns) for x in range(width)])
    logits = torch.stack(
        [
            (queries * keys[:, :, :, down[:, i]][..., across[:, j]]).sum(2)
            for i in range(WINDOW)
            for j in range(WINDOW)
        ]
    )  # (81, B, n, H', W')
    weights = (logits * queries.shape[2] ** -0.5).softmax(dim=0)
    output = torch.zeros_like(values)
    for k, weight in enumerate(weights):
        seen = values[:, :, :, down[:, k // WINDOW]][..., across[:, k % WINDOW]]
        output += weight[:, :, None] * seen
    return output.flatten(1, 2)


def neighbours(position: int, length: int, dilation: int) -> list[int]:
    """The positions that one position of an axis attends to, by NATTEN's rule."""
    own = list(range(position % dilation, length, dilation))
    if len(own) < WINDOW:
        raise ValueError(f"{length} pixels hold no {WINDOW} neighbours {dilation} apart")
    start = own.index(position) - WINDOW // 2
    start = min(max(start, 0), len(own) - WINDOW)
    return own[start : start + WINDOW]
