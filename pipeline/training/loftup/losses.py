"""LoftUp's losses on windows of its output.

Shapes: n windows, C channels, h×w patches of a window, s side of a window, P sampled pixels,
M masks of an image.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from .crops import Starts
from .targets import Example, upsample_window


def anchor_loss(output: Tensor, patches: Tensor) -> Tensor:
    """Squared distance of the output's mean over every patch to that patch's own features.

    What keeps the output where text can tell it: affinities alone do not change when the whole
    space is turned.

    `output` is (n, C, s, s), `patches` (n, C, h, w), both channel-normalised.
    """
    return F.mse_loss(F.adaptive_avg_pool2d(output, (patches.shape[2], patches.shape[3])), patches)


def cut_patches(normed: Tensor, starts: Starts, side: int, patch: int) -> Tensor:
    """The patches under every window: (B, C, H/patch, W/patch) -> (n, C, s/patch, s/patch)."""
    n = side // patch
    cut = [
        grid[:, top // patch :, left // patch :][:, :n, :n]
        for grid, places in zip(normed, starts, strict=True)
        for top, left in places
    ]
    return torch.stack(cut)


def mask_loss(
    output: Tensor, target: Tensor, examples: list[Example], starts: Starts, scale: float
) -> Tensor:
    """How differently output and target tell which mask a pixel belongs to (KL divergence).

    Compared in the backbone's own space, where it weighs the directions that set things apart.

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
        for place in places:
            window = (*place, side)
            size = example.masks.shape
            statistics.append(upsample_window(moments, size, window, mode="bilinear"))
            vectors.append(example.joint)
    deviation, mean = torch.stack(statistics).split(1, dim=1)
    joint = pad_sequence(vectors, batch_first=True)  # (n, M, C)
    absent = joint.abs().sum(2) == 0

    def log_probabilities(normed: Tensor) -> Tensor:
        """(n, C, s, s) -> (n, M, s·s) logarithms of the probability of every mask."""
        unit = F.normalize(normed * deviation + mean, dim=1).flatten(2)
        logits = (scale * joint @ unit).masked_fill(absent[..., None], -1e4)
        return logits.log_softmax(1)

    with torch.no_grad():
        wanted = log_probabilities(target)
    return (wanted.exp() * (wanted - log_probabilities(output))).sum(1).mean()


def affinity(pixels: Tensor) -> Tensor:
    """Cosines of all pairs of pixels: (n, C, P) -> (n, P, P)."""
    unit = F.normalize(pixels, dim=1)
    return unit.transpose(1, 2) @ unit


def affinity_loss(output: Tensor, target: Tensor, chosen: Tensor) -> Tensor:
    """Mean squared difference of the affinities of output and target (n, C, s, s).

    Over the `chosen` pixels of each window, (n, P) int64, row · s + column.
    """
    index = chosen[:, None].expand(-1, output.shape[1], -1)
    own, wanted = (affinity(x.flatten(2).gather(2, index)) for x in (output, target))
    return F.mse_loss(own, wanted)
