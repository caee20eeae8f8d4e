"""Windows of LoftUp's output: where they lie, and how many of them are computed at once.

Shapes: B images, n windows of all images, C channels, D = C + 20, H×W pixels, s side of a window.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from models.loftup.guide import Window, scale_colours
from models.loftup.heads import Mix
from models.loftup.network import LoftUp

HALO = 2  # reach of LoftUp's two 3×3 convolutions, pixels
_NEAR_OUTLINE = 0.75  # share of the windows

Starts = list[list[tuple[int, int]]]  # per image the (top, left) of its windows


def choose_windows(
    masks: np.ndarray, rng: np.random.Generator, *, count: int, side: int, patch: int
) -> list[tuple[int, int]]:
    """Tops and lefts of windows that begin at patches, three of four on an outline.

    Args:
        masks: (H, W) mask map.
        rng: source of the choice.
        count: how many.
        side: of a window, a multiple of `patch`.
        patch: side of a patch, pixels.
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
        top = np.clip((row - offset[0]) / patch + 0.5, 0, (height - side) / patch)
        left = np.clip((column - offset[1]) / patch + 0.5, 0, (width - side) / patch)
        starts.append((int(top) * patch, int(left) * patch))
    return starts


def upsample_windows(
    loftup: LoftUp,
    features: Tensor,
    images: Tensor,
    starts: Starts,
    side: int,
    shares: Tensor | None = None,
) -> Tensor:
    """Several windows of every image at once: (B, C, h, w), (B, 3, H, W) -> (n, C, s, s).

    Equal to windows cut from the output of `loftup`, but that the batch norms see all of them, and
    nothing else, together. A window may be the whole image. `shares` (B, R, h, w) are mixed as the
    features are and follow them, R channels more; for the head that mixes.
    """
    net, (height, width) = loftup.upsampler, images.shape[2:]
    phases = net.fourier_feat.get_parameter("1.biases")
    if side > min(height, width):
        raise ValueError(f"windows of {side} pixels do not fit images of {height}×{width}")
    # Crops stay inside the image, all of one size; at its border the padding is real.
    tall, wide = min(side + 2 * HALO, height), min(side + 2 * HALO, width)
    scaled, guides, corners = scale_colours(images), [], []
    # Nothing before the first norm learns but, perhaps, the guide's phases.
    learns = torch.is_grad_enabled() and phases.requires_grad
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
    normed = loftup.channelnorm(features)
    context = net.encode_context(normed)
    owner = torch.tensor([i for i, places in enumerate(starts) for _ in places])
    owner = owner.to(features.device)
    keys_values = [
        (keys.index_select(0, owner), values.index_select(0, owner))
        for keys, values in net.ca_transformer.keys_values(context)
    ]
    x = net.ca_transformer(queries.flatten(1, 2), keys_values)
    normed = normed.index_select(0, owner)
    windows = [Window(top, left, side, side) for places in starts for top, left in places]
    if shares is None:
        return net.finish(x, normed, (height, width), windows)
    assert isinstance(net.head, Mix)  # the configuration sees to it
    values = torch.cat([normed, shares.index_select(0, owner)], dim=1)
    return net.head.mixed(x, normed, values, (height, width), windows)
