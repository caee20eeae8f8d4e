"""LoftUp's loss on windows of its output.

Shapes: B images, n windows of all images, C channels, D = C + 20, h×w cells, H×W pixels, s side of
a window, M masks of an image.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from models.loftup import LoftUp, Window, scale_colours

from .loftup_targets import Example, enlarge_window

HALO = 2  # reach of LoftUp's two 3×3 convolutions, pixels
MASK_SHARE = 0.9  # α, mask feature against bicubic; 0.8 in the paper, whose masks are not exact


def upsample_windows(
    loftup: LoftUp, features: Tensor, images: Tensor, starts: list[list[tuple[int, int]]], side: int
) -> Tensor:
    """Several windows of every image at once: (B, C, h, w), (B, 3, H, W) -> (n, C, s, s).

    Equal to `loftup(features[i : i + 1], images[i : i + 1], window)` one after the other, but that
    the batch norms see all windows together.
    """
    net, crop = loftup.upsampler, side + 2 * HALO
    if crop > min(images.shape[2:]):
        raise ValueError(f"windows of {side} pixels do not fit images of {tuple(images.shape[2:])}")
    with torch.no_grad():  # the guide's phases stay random: nothing before the first norm learns
        scaled, (height, width) = scale_colours(images), images.shape[2:]
        guides, corners = [], []
        for i, places in enumerate(starts):
            for top, left in places:
                # Crops stay inside the image, all of one size; at its border the padding is real.
                row = min(max(top - HALO, 0), height - crop)
                column = min(max(left - HALO, 0), width - crop)
                window = Window(row, column, crop, crop)
                guides.append(net.encode_guide(scaled[i : i + 1], window))
                corners.append((top - row, left - column))
    queries = net.first_conv(torch.cat(guides)).permute(0, 2, 3, 1)  # as it lies in memory
    queries = torch.stack(
        [q[y : y + side, x : x + side] for q, (y, x) in zip(queries, corners, strict=True)]
    )  # (n, s, s, D)
    context = net.encode_context(loftup.channelnorm(features))
    owner = torch.tensor([i for i, places in enumerate(starts) for _ in places])
    keys_values = [
        (keys.index_select(0, owner), values.index_select(0, owner))
        for keys, values in net.ca_transformer.keys_values(context)
    ]
    x = net.ca_transformer(queries.flatten(1, 2), keys_values)
    return net.final_conv(x.transpose(1, 2).unflatten(2, (side, side)))


def loss_terms(
    loftup: LoftUp,
    output: Tensor,
    examples: list[Example],
    starts: list[list[tuple[int, int]]],
    scale: float,
) -> dict[str, Tensor]:
    """The three terms; `output` (n, C, s, s) of `upsample_windows`, `scale` of the cosines."""
    size, side = examples[0].masks.shape, output.shape[2]
    cell = size[0] // examples[0].features.shape[1]
    targets, cells, statistics, vectors = [], [], [], []
    for example, places in zip(examples, starts, strict=True):
        normed = loftup.channelnorm(example.features[None])[0]
        # The way back to the joint space, y·σ + μ, as in `restore_text_space` (the norm is plain).
        moments = torch.std_mean(example.features, dim=0, correction=0)
        for top, left in places:
            inside = torch.from_numpy(example.masks[top : top + side, left : left + side])
            bicubic = enlarge_window(normed, size, top, left, side)
            by_mask = example.normed[inside].movedim(2, 0)
            targets.append(MASK_SHARE * by_mask + (1 - MASK_SHARE) * bicubic)
            part = normed[:, top // cell : (top + side) // cell]
            cells.append(part[:, :, left // cell : (left + side) // cell])
            statistics.append(
                enlarge_window(torch.stack(moments), size, top, left, side, mode="bilinear")
            )
            vectors.append(example.joint)
    target, cells = torch.stack(targets), torch.stack(cells)
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
    own = log_shares(output)
    return {
        "l2": F.mse_loss(output, target),
        "mask": (wanted.exp() * (wanted - own)).sum(1).mean(),
        "anchor": F.mse_loss(F.avg_pool2d(output, cell), cells),
    }
