"""LoftUp's losses on windows of its output.

Shapes: n windows, C channels, h×w cells of a window, s side of a window, P sampled pixels,
M masks of an image.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from .crops import Starts
from .targets import Example, enlarge_window


def anchor_loss(output: Tensor, cells: Tensor) -> Tensor:
    """Squared distance of the output's mean over every cell to that cell's own features.

    What keeps the output where text can tell it: affinities alone do not change when the whole
    space is turned.

    Args:
        output: (n, C, s, s).
        cells: (n, C, h, w), channel-normalised.
    """
    return F.mse_loss(F.adaptive_avg_pool2d(output, cells.shape[2:]), cells)


def cut_cells(normed: Tensor, starts: Starts, side: int, cell: int) -> Tensor:
    """The cells under every window: (B, C, H/cell, W/cell) -> (n, C, s/cell, s/cell)."""
    return torch.stack(
        [
            grid[:, top // cell : (top + side) // cell, left // cell : (left + side) // cell]
            for grid, places in zip(normed, starts, strict=True)
            for top, left in places
        ]
    )


def mask_loss(
    output: Tensor, target: Tensor, examples: list[Example], starts: Starts, scale: float
) -> Tensor:
    """How differently output and target tell which mask a pixel belongs to (KL divergence).

    Told in the backbone's own space, where it weighs the directions that set things apart.

    Args:
        output: (n, C, s, s), channel-normalised.
        target: as `output`.
        examples: the images.
        starts: where the windows lie in them.
        scale: of the cosines.
    """
    side = output.shape[2]
    statistics, vectors = [], []
    for example, places in zip(examples, starts, strict=True):
        # The way back to that space, y·σ + μ, as in `restore_text_space` (the norm is plain).
        moments = torch.stack(torch.std_mean(example.features, dim=0, correction=0))
        size = tuple(example.masks.shape)
        for top, left in places:
            statistics.append(enlarge_window(moments, size, top, left, side, mode="bilinear"))
            vectors.append(example.joint)
    deviation, mean = torch.stack(statistics).split(1, dim=1)
    joint = pad_sequence(vectors, batch_first=True)  # (n, M, C)
    absent = joint.abs().sum(2) == 0

    def log_shares(normed: Tensor) -> Tensor:
        """(n, C, s, s) -> (n, M, s·s) logarithms of the probability of every mask."""
        unit = F.normalize(normed * deviation + mean, dim=1).flatten(2)
        logits = (scale * joint @ unit).masked_fill(absent[..., None], -1e4)
        return logits.log_softmax(1)

    with torch.no_grad():
        wanted = log_shares(target)
    return (wanted.exp() * (wanted - log_shares(output))).sum(1).mean()


def affinity(pixels: Tensor) -> Tensor:
    """Cosines of all pairs of pixels: (n, C, P) -> (n, P, P)."""
    unit = F.normalize(pixels, dim=1)
    return unit.transpose(1, 2) @ unit


def affinity_loss(output: Tensor, target: Tensor, chosen: Tensor) -> Tensor:
    """Mean squared difference of the two affinity matrices over chosen pixels.

    Args:
        output: (n, C, s, s).
        target: as `output`.
        chosen: (n, P) int64, pixels of each window, row · s + column.
    """
    index = chosen[:, None].expand(-1, output.shape[1], -1)
    own, wanted = (affinity(x.flatten(2).gather(2, index)) for x in (output, target))
    return F.mse_loss(own, wanted)
