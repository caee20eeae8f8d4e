"""Windows of LoftUp's output: where they lie, and how many of them are computed at once.

Shapes: B images, n windows of all images, C channels, D = C + 20, H×W pixels, s side of a window.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from models.loftup.guide import Window, scale_colours
from models.loftup.network import LoftUp

HALO = 2  # reach of LoftUp's two 3×3 convolutions, pixels
_NEAR_OUTLINE = 0.75  # share of the windows

Starts = list[list[tuple[int, int]]]  # per image the (top, left) of its windows


def choose_windows(
    masks: np.ndarray, rng: np.random.Generator, *, count: int, side: int, cell: int
) -> list[tuple[int, int]]:
    """Tops and lefts of windows that begin at cells, three of four on an outline.

    Args:
        masks: (H, W) mask map.
        rng: source of the choice.
        count: how many.
        side: of a window, a multiple of `cell`.
        cell: side of a cell, pixels.
    """
    height, width = masks.shape
    edges = np.zeros(masks.shape, bool)
    edges[1:] |= masks[1:] != masks[:-1]
    edges[:, 1:] |= masks[:, 1:] != masks[:, :-1]
    places = np.flatnonzero(edges)
    starts = []
    for _ in range(count):
        if len(places) and rng.random() < _NEAR_OUTLINE:
            row, column = divmod(int(places[rng.integers(len(places))]), width)
        else:
            row, column = int(rng.integers(height)), int(rng.integers(width))
        offset = rng.integers(0, side, 2)  # where in the window that pixel lies
        top = np.clip((row - offset[0]) / cell + 0.5, 0, (height - side) / cell)
        left = np.clip((column - offset[1]) / cell + 0.5, 0, (width - side) / cell)
        starts.append((int(top) * cell, int(left) * cell))
    return starts


def upsample_windows(
    loftup: LoftUp, features: Tensor, images: Tensor, starts: Starts, side: int
) -> Tensor:
    """Several windows of every image at once: (B, C, h, w), (B, 3, H, W) -> (n, C, s, s).

    Equal to windows cut from the output of `loftup`, but that the batch norms see all of them, and
    nothing else, together. A window may be the whole image.
    """
    net, (height, width) = loftup.upsampler, images.shape[2:]
    if side > min(height, width):
        raise ValueError(f"windows of {side} pixels do not fit images of {height}×{width}")
    # Crops stay inside the image, all of one size; at its border the padding is real.
    tall, wide = min(side + 2 * HALO, height), min(side + 2 * HALO, width)
    scaled, guides, corners = scale_colours(images), [], []
    # Nothing before the first norm learns but, perhaps, the guide's phases.
    learns = torch.is_grad_enabled() and net.fourier_feat[1].biases.requires_grad
    with torch.set_grad_enabled(learns):
        for i, places in enumerate(starts):
            for top, left in places:
                row = min(max(top - HALO, 0), height - tall)
                column = min(max(left - HALO, 0), width - wide)
                guides.append(net.encode_guide(scaled[i : i + 1], Window(row, column, tall, wide)))
                corners.append((top - row, left - column))
    queries = net.first_conv(torch.cat(guides)).permute(0, 2, 3, 1)  # as it lies in memory
    queries = torch.stack(
        [q[y : y + side, x : x + side] for q, (y, x) in zip(queries, corners, strict=True)]
    )  # (n, s, s, D)
    context = net.encode_context(loftup.channelnorm(features))
    owner = torch.tensor([i for i, places in enumerate(starts) for _ in places])
    owner = owner.to(features.device)
    keys_values = [
        (keys.index_select(0, owner), values.index_select(0, owner))
        for keys, values in net.ca_transformer.keys_values(context)
    ]
    x = net.ca_transformer(queries.flatten(1, 2), keys_values)
    return net.final_conv(x.transpose(1, 2).unflatten(2, (side, side)))


@torch.no_grad()
def recalibrate(loftup: LoftUp, images: list[Tensor], rng: np.random.Generator) -> None:
    """Set the batch norms' running statistics to those of evenly drawn windows of `images`.

    Training windows prefer outlines; whole images, which the statistics are for, do not.
    """
    net, side = loftup.upsampler, min(64, *images[0].shape[1:])
    guides = []
    for image in images:
        top, left = (int(rng.integers(0, n - side + 1)) for n in image.shape[1:])
        scaled = scale_colours(image[None])
        guides.append(net.encode_guide(scaled, Window(top, left, side, side)))
    norms = batch_norms(loftup)
    before = [(m.training, m.momentum) for m in norms]
    for m in norms:
        m.train()
        m.momentum = 1.0
    with torch.autocast(images[0].device.type, torch.bfloat16):
        net.first_conv(torch.cat(guides))
    for m, (training, momentum) in zip(norms, before, strict=True):
        m.train(training)
        m.momentum = momentum


def batch_norms(loftup: LoftUp) -> list[nn.BatchNorm2d]:
    """The two batch norms."""
    return [m for m in loftup.upsampler.first_conv if isinstance(m, nn.BatchNorm2d)]


def freeze_norms(loftup: LoftUp) -> None:
    """Batch norms use their running statistics from now on, in training mode as well."""
    for m in batch_norms(loftup):
        m.eval()
