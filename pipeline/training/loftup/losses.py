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
from .targets import Example, patch_shares, upsample_window

LEAST_SHARE = 1e-3  # of its own region that a pixel is taken to have


def anchor_loss(output: Tensor, normed: Tensor, starts: Starts, patch: int) -> Tensor:
    """Squared distance of the output's mean over every patch to that patch's own features.

    What keeps the output where text can tell it: affinities alone do not change when the whole
    space is turned. Patches that a window holds only a part of do not count.

    Args:
        output: (n, C, s, s), windows of all images.
        normed: (B, C, H/patch, W/patch) features. Both are channel-normalised.
        starts: where the windows lie.
        patch: side of a patch, pixels.
    """
    side, found, wanted = output.shape[2], [], []
    windows = iter(output)
    for grid, places in zip(normed, starts, strict=True):
        for place in places:
            first = [-(-start // patch) for start in place]  # whole patches
            rows, columns = (
                slice(f, (start + side) // patch) for f, start in zip(first, place, strict=True)
            )
            cells, window = grid[:, rows, columns], next(windows)
            if not cells.numel():
                continue
            top, left = (f * patch - start for f, start in zip(first, place, strict=True))
            pooled = F.avg_pool2d(window[:, top:, left:], patch)
            found.append(pooled[:, : cells.shape[1], : cells.shape[2]].flatten(1))
            wanted.append(cells.flatten(1))
    if not found:
        return output.sum() * 0
    return F.mse_loss(torch.cat(found, dim=1), torch.cat(wanted, dim=1))


def total_variation(maps: Tensor) -> Tensor:
    """Mean squared difference of neighbouring pixels of (n, C, s, s), down and across."""
    return maps.diff(dim=2).square().mean() + maps.diff(dim=3).square().mean()


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


def stack_shares(examples: list[Example]) -> Tensor:
    """What part of every patch each region covers, (B, R, h, w); zero for regions not there."""
    shares = [
        patch_shares(example.masks.cpu().numpy(), example.features.shape[1:])
        for example in examples
    ]
    shape = examples[0].features.shape[1:]
    padded = pad_sequence([torch.from_numpy(s) for s in shares], batch_first=True)
    return padded.unflatten(2, shape).to(examples[0].features.device)


def share_loss(mixed: Tensor, examples: list[Example], starts: Starts) -> Tensor:
    """How little of what a pixel is mixed from lies in its own region: mean of -log of that part.

    Asks of the weights what Eq. 1 asks of features, and needs none: take from patches that are the
    pixel's own. Pixels in no region do not count.

    `mixed` is (n, heads, R, s, s): the shares of the regions, mixed as the features are.
    """
    side = mixed.shape[3]
    masks = torch.stack(
        [
            example.masks[top : top + side, left : left + side]
            for example, places in zip(examples, starts, strict=True)
            for top, left in places
        ]
    )  # (n, s, s)
    index = masks.clamp_min(0)[:, None, None].expand(-1, mixed.shape[1], -1, -1, -1)
    own = mixed.gather(2, index)[:, :, 0]
    counted = (masks >= 0)[:, None].expand_as(own)
    return -own[counted].clamp_min(LEAST_SHARE).log().mean() if counted.any() else own.sum() * 0
