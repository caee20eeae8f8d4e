"""ProxyCLIP's and CorrCLIP's mixing as their papers write it, for comparison: all n² weights.

Shapes: n = h'·w' cells of the proxy, V channels of values on CLIP's grid h×w.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def plain_proxy(cells: Tensor, values: Tensor, size: tuple[int, int]) -> Tensor:
    """softmax(3·(S − 1.2·mean S)), entries below 0 masked, times the values on the proxy's grid.

    Args:
        cells: (n, C') unit vectors.
        values: (V, h, w).
        size: (h', w').

    Returns:
        (n, V).
    """
    similarity = cells @ cells.T
    logits = (similarity - 1.2 * similarity.mean()) * 3.0
    logits[logits < 0] = float("-inf")
    return _mixed(logits, values, size)


def plain_corr(cells: Tensor, values: Tensor, size: tuple[int, int], regions: Tensor) -> Tensor:
    """softmax(4·S) within regions (n,), −1 where there is none, times the values."""
    similarity = cells @ cells.T
    same = regions[:, None] == regions[None]
    loose = (regions < 0)[:, None] | (regions < 0)[None]
    allowed = torch.where(loose, similarity > similarity.mean(), same)
    return _mixed((similarity * 4.0).masked_fill(~allowed, float("-inf")), values, size)


def _mixed(logits: Tensor, values: Tensor, size: tuple[int, int]) -> Tensor:
    large = F.interpolate(values[None], size, mode="bilinear")[0].flatten(1).T  # (n, V)
    return logits.softmax(dim=-1) @ large
