"""LoftUp as it was published, for comparison: every activation at full resolution.

Written from the paper (Huang et al., ICCV 2025, arXiv:2504.14032) and the facts of the published
code, on the weights of a `models.loftup.LoftUp`: nothing folded, no tiles, the whole attention
matrix (torch.nn.MultiheadAttention, asked for its weights as the published code does).

Shapes: B batch, C feature channels, h w low-resolution grid, H W image pixels, D = C + 20.
"""

import torch
from torch import Tensor

from models.loftup.network import LoftUp


@torch.no_grad()
def plain_loftup(loftup: LoftUp, features: Tensor, image: Tensor) -> Tensor:
    """(B, C, h, w) and (B, 3, H, W) -> (B, C, H, W), in the space of the channel norm."""
    net = loftup.upsampler
    low, high = image.amin((2, 3), keepdim=True), image.amax((2, 3), keepdim=True)
    image = (image - low) / (high - low).clamp_min(1e-4) - 0.5
    signals = torch.cat([_grid(image), image], dim=1)
    guide = torch.cat([*_waves(signals, net.fourier_feat[1].biases), image], dim=1)
    queries = net.first_conv(guide).flatten(2).transpose(1, 2)  # (B, H·W, D)

    features = loftup.channelnorm(features)
    context = torch.cat([features, *_waves(_grid(features), net.lr_pe.biases)], dim=1)
    context = context.flatten(2).transpose(1, 2)  # (B, h·w, D)
    for attention, feed_forward in net.ca_transformer.layers:
        keys = values = attention.norm_kv(context)
        mixed, _ = attention.attention(attention.norm_q(queries), keys, values)
        queries = mixed + queries
        queries = feed_forward(queries) + queries
    queries = net.ca_transformer.norm(queries)
    return net.final_conv(queries.transpose(1, 2).unflatten(2, image.shape[2:]))


def _grid(x: Tensor) -> Tensor:
    """Rows and columns in [-1, 1]: (B, 2, H, W)."""
    axes = (torch.linspace(-1, 1, length) for length in x.shape[2:])
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).expand(len(x), -1, -1, -1)


def _waves(signals: Tensor, biases: Tensor) -> tuple[Tensor, Tensor]:
    """Sines and cosines (B, F·S, H, W) of signals (B, S, H, W)."""
    _, count, steps = biases.shape
    frequencies = torch.linspace(-2, 10, steps).exp().view(steps, 1, 1, 1)
    waves = signals[:, None] * frequencies  # (B, F, S, H, W)
    sines, cosines = biases.reshape(2, steps, count, 1, 1)
    return (waves + sines).sin().flatten(1, 2), (waves + cosines).cos().flatten(1, 2)
