"""LoftUp's weights before training, such that it enlarges already: each pixel averages its cells.

A LoftUp with random weights must first learn to copy: where a pixel lies among the cells, and to
say what it reads there. That takes most of a short run, and what it copies stays blurred. Here
both are set by hand, in the published architecture. The first attention layer compares the places
of pixels and cells by one wave per axis, so that its weights fall off like a Gaussian; values and
projections are the identity; everything else adds nothing yet. What is left to learn is what only
learning gives: which cells to read, told by the image.

Shapes: C channels, D = C + 20 working width, h×w cells, H×W pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.loftup.guide import Window, scale_colours
from models.loftup.modules import (
    GRID_CHANNELS,
    GRID_FREQUENCIES,
    GRID_SIGNALS,
    GUIDE_CHANNELS,
    GUIDE_FREQUENCIES,
    GUIDE_SIGNALS,
    HEADS,
)
from models.loftup.network import LoftUp

from .norms import batch_norms, recalibrate

REACH = 0.5  # standard deviation of the attention, cells
IMAGE_SCALE = 0.3  # of what a pixel itself says, beside the features it reads
_WAVE = 1  # of the grid's frequencies: e, less than a wave from border to border
_SIGNALS = 2 * GRID_SIGNALS  # sine and cosine of row and column
_SIGNS = torch.tensor([1.0, -1.0])


@torch.no_grad()
def start_locally(
    loftup: LoftUp,
    grid: tuple[int, int],
    images: list[Tensor],
    frequencies: int,
    rng: np.random.Generator,
) -> None:
    """Set the weights of a new LoftUp; those that add nothing yet stay random where they can.

    Args:
        loftup: gets weights, and statistics of its batch norms to be frozen with.
        grid: (h, w) patches of a training image.
        images: (3, H, W) uint8, some training images.
        frequencies: of the guide, lowest first, that are listened to.
        rng: draws the windows that the statistics are taken from.
    """
    device = next(loftup.parameters()).device
    loftup.cpu()
    net: Any = loftup.upsampler  # indexed by place: sequences do not tell the types of their parts
    dim, wave = loftup.dim, net.lr_pe.frequencies()[_WAVE]
    for waves in (net.fourier_feat[1], net.lr_pe):
        waves.biases.zero_()
    # After a ReLU a signal takes two channels, for its positive and its negative part. They lie
    # where the context has its positions, beside the features.
    pairs = torch.arange(dim, dim + 2 * _SIGNALS).unflatten(0, (_SIGNALS, 2))
    height, width = images[0].shape[1:]
    guide = net.encode_guide(scale_colours(images[0][None]), Window(0, 0, height, width))
    signals = _places((height, width), grid, wave)  # (H·W, 4)
    mean = (_SIGNS * signals.mean(0)[:, None]).float()
    variance = signals.var(0)[:, None].float().expand(-1, 2)
    mixed = _fit(net.first_conv[0](guide)[0].flatten(1), signals, frequencies)
    passed = torch.zeros(_SIGNALS, dim + GRID_CHANNELS)
    passed.scatter_(1, pairs, _SIGNS.expand(_SIGNALS, 2))
    for index, weights in ((1, mixed), (4, passed)):
        convolution, norm = net.first_conv[index : index + 2]
        convolution.weight[pairs] = 0
        convolution.weight[pairs, :, 1, 1] = _SIGNS[:, None] * weights[:, None]
        convolution.bias[pairs] = 0
        norm.bias[pairs], norm.weight[pairs] = mean, (variance + norm.eps).sqrt()
    others = torch.ones(dim + GRID_CHANNELS, dtype=torch.bool)
    others[pairs] = False
    norm.weight[others] = IMAGE_SCALE
    recalibrate(loftup, images, rng)
    for norm in batch_norms(loftup):
        # With these statistics the norm does not change what the pairs say.
        norm.get_buffer("running_mean")[pairs] = mean
        norm.get_buffer("running_var")[pairs] = variance

    (first, _), (second, _) = net.ca_transformer.layers
    _read_nearby(net, first, pairs, guide, REACH * 2 / (max(grid) - 1) * wave)
    second.attention.load_state_dict(first.attention.state_dict())
    copied = torch.diag(torch.arange(dim + GRID_CHANNELS) < dim).float()
    first.attention.out_proj.weight.copy_(copied)
    second.attention.out_proj.weight.zero_()
    for _, feed_forward in net.ca_transformer.layers:
        nn.init.zeros_(feed_forward.net[4].weight)
        nn.init.zeros_(feed_forward.net[4].bias)
    net.final_conv[0].weight.copy_(copied[:dim, :, None, None])
    net.final_conv[0].bias.zero_()
    loftup.to(device)


def _fit(guide: Tensor, signals: Tensor, frequencies: int) -> Tensor:
    """The sums of the guide's channels (203, H·W) nearest to signals (H·W, 4): (4, 203).

    The guide has other waves than the grid: least squares over its sines and cosines of row and
    column.
    """
    low = torch.zeros(2, GUIDE_FREQUENCIES, GUIDE_SIGNALS, dtype=torch.bool)
    low[:, :frequencies, :2] = True
    low = low.flatten().nonzero()[:, 0]
    waves = guide[low].T.double()  # (H·W, n)
    ridge = 1e-4 * len(waves) * torch.eye(len(low))
    fitted = torch.linalg.solve(waves.T @ waves + ridge, waves.T @ signals)  # (n, 4)
    return torch.zeros(_SIGNALS, GUIDE_CHANNELS).index_copy_(1, low, fitted.T.float())


def _places(size: tuple[int, int], grid: tuple[int, int], frequency: Tensor) -> Tensor:
    """Sine and cosine of every pixel's row and column, (H·W, 4) float64, in cells' coordinates."""
    # The first cell's centre has coordinate -1; the first pixel's centre lies outside of it.
    axes = [
        torch.linspace(-1, 1, n, dtype=torch.float64) * (1 - 1 / n) / (1 - 1 / cells)
        for n, cells in zip(size, grid, strict=True)
    ]
    places = torch.meshgrid(*axes, indexing="ij")
    waves = [wave(frequency * place) for place in places for wave in (torch.sin, torch.cos)]
    return torch.stack(waves).flatten(1).T


def _read_nearby(net: Any, layer: Any, pairs: Tensor, guide: Tensor, reach: Tensor) -> None:
    """Every head compares places first of all, and reads its own part of the features."""
    weight = layer.attention.in_proj_weight
    width = weight.shape[1]
    head = width // HEADS
    queries, keys, values = weight.chunk(3)
    values.copy_(torch.eye(width))
    layer.attention.in_proj_bias.zero_()
    net.first_conv.eval()
    seen = layer.norm_q(net.first_conv(guide)[0].flatten(1).T)  # (H·W, D)
    net.first_conv.train()
    amplitude = (seen[:, pairs[:, 0]] - seen[:, pairs[:, 1]]).square().mean().mul(2).sqrt()
    # cos(ωΔ) is about 1 - (ωΔ)²/2, so the weights exp(sharpness · cos(ωΔ)) are a Gaussian.
    gain = (head**0.5 / amplitude).sqrt() / reach
    # Of the context's last channels: sines, then cosines, frequency by frequency, row and column.
    order = torch.arange(width - GRID_CHANNELS, width).view(2, GRID_FREQUENCIES, GRID_SIGNALS)
    order = order[:, _WAVE].T.flatten()
    for start in range(0, width, head):
        rows = torch.arange(start, start + _SIGNALS)
        queries[rows], keys[rows] = 0, 0
        queries[rows[:, None], pairs] = gain * _SIGNS
        keys[rows, order] = gain
