"""CLIP's values mixed by how alike a second network, the proxy, finds two places (ProxyCLIP).

Lan et al., ECCV 2024, arXiv:2408.04883, eq. 4-6. The weights are the same for every head, so they
are made once, in strips: memory is set by a strip of rows, never by all n² of them (36,864² where
the proxy is upsampled 8×, as in the LoftUp paper, arXiv:2504.14032, Tab. 4).

The published code enlarges the values to the proxy's grid and mixes n vectors. Here the weights are
brought to the grid of the values instead, by the transpose of the same linear map, which gives the
same sums with h·w terms instead of n.

Shapes: B images, h w CLIP's grid, h' w' the proxy's, n = h'·w', r rows of a strip, D width of
CLIP's transformer, C joint width, C' channels of the proxy, V channels of values.
"""

from collections.abc import Callable, Iterator

import torch
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor
from torch.nn import functional as F

from .clip_dense import head_values, last, project
from .dense_methods.settings import Given

BETA, GAMMA = 1.2, 3.0  # the paper's shift, a share of the mean similarity, and sharpness
_STRIP_ELEMENTS = 2**22  # weights held at once


def proxy(visual: VisionTransformer, states: list[Tensor], given: Given) -> Tensor:
    """ProxyCLIP: the last block's values, mixed by the proxy's similarity.

    The mean similarity is taken image by image.

    Args:
        visual: CLIP's tower.
        states: (B, T, D) before each block, the last one's last.
        given: with `proxy`.

    Returns:
        (B, C, h', w').
    """
    assert given.proxy is not None, "the method needs it"
    values = head_values(last(visual), states[-1])  # (B, T, D)
    grids = to_patches(values, given.grid)
    images = zip(unit_cells(given.proxy), grids, strict=True)
    size = (given.proxy.shape[2], given.proxy.shape[3])
    return torch.stack([_one(visual, cells, grid, size) for cells, grid in images])


def _one(visual: VisionTransformer, cells: Tensor, values: Tensor, size: tuple[int, int]) -> Tensor:
    block, logits = last(visual), proxy_logits(cells)
    strips = (
        project(visual, finish_values(block, mixed)) for mixed in attend(values, size, logits)
    )
    return torch.cat(list(strips)).T.unflatten(1, size)  # (C, h', w')


def finish_values(block: ResidualAttentionBlock, mixed: Tensor) -> Tensor:
    """What follows the mix of `head_values` in a block without residual and MLP."""
    return block.ls_1(mixed + block.attn.out_proj.bias)


def to_patches(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Patch tokens of (B, 1 + h·w, D) as a grid (B, D, h, w)."""
    return tokens[:, 1:].transpose(1, 2).unflatten(2, grid)


def unit_cells(proxy: Tensor) -> Tensor:
    """Features (B, C', h', w') as unit vectors (B, n, C'), float32."""
    return F.normalize(proxy.float().flatten(2), dim=1).transpose(1, 2).contiguous()


def mean_similarity(cells: Tensor) -> float:
    """The mean of all n² products of unit vectors (n, C'), without making them."""
    return (cells.double().mean(0).square().sum()).item()


def proxy_logits(cells: Tensor) -> Callable[[slice], Tensor]:
    """Rows of γ·(S − β·mean S), −inf below 0; a cell always attends to itself."""
    shift = -GAMMA * BETA * mean_similarity(cells)
    offset, scaled = cells.new_tensor([shift]), cells * GAMMA

    def logits(rows: slice) -> Tensor:
        found = torch.addmm(offset, scaled[rows], cells.T)  # (r, n)
        own = found.diagonal(rows.start)
        kept = own.clamp_min(0)
        lowest = -torch.finfo(found.dtype).tiny
        F.threshold(found, lowest, -torch.inf, inplace=True)  # a strip is large: no copy
        found.diagonal(rows.start).copy_(kept)
        return found

    return logits


def attend(
    values: Tensor, size: tuple[int, int], logits: Callable[[slice], Tensor]
) -> Iterator[Tensor]:
    """softmax(logits) · values resized bilinearly to `size`, in strips of rows.

    Args:
        values: (V, h, w).
        size: (h', w') of the attending cells, which are those attended to.
        logits: rows of them -> (r, n) float32, which may be changed; −inf is not attended to. None
            may exceed 80, whose exponential is a finite number.

    Yields:
        (r, V) for the rows in turn.
    """
    count = size[0] * size[1]
    rows, columns = (
        resize_matrix(side, target).to(values.device)
        for side, target in zip(values.shape[1:], size, strict=True)
    )
    flat = values.float().flatten(1).T  # (h·w, V)
    step = max(1, _STRIP_ELEMENTS // count)
    for start in range(0, count, step):
        with torch.autocast(values.device.type, enabled=False):
            weights = logits(slice(start, min(start + step, count))).exp_()
            weights = weights.unflatten(1, size) @ columns  # (r, h', w)
            weights = (rows.T @ weights).flatten(1)  # (r, h·w)
            yield (weights @ flat) / weights.sum(1, keepdim=True)


def resize_matrix(side: int, target: int) -> Tensor:
    """The weights (target, side) of bilinear resizing along one axis; each row's sum is 1."""
    identity = torch.eye(side)[None, None]
    return F.interpolate(identity, (target, side), mode="bilinear")[0, 0]
