"""Images made strip by strip, from top to bottom, so that memory does not grow with them."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F


def assemble(strips: Iterable[Tensor], height: int) -> Tensor:
    """Strips (B, C, rows, W), top to bottom, as one (B, C, H, W); holds one strip beside it."""
    output, top = None, 0
    for strip in strips:
        if output is None:
            if strip.shape[2] == height:
                return strip
            output = strip.new_empty(*strip.shape[:2], height, strip.shape[3])
        output[:, :, top : top + strip.shape[2]] = strip
        top += strip.shape[2]
    assert output is not None and top == height, (top, height)
    return output


def resized_rows(values: Tensor, size: tuple[int, int], mode: str, top: int, bottom: int) -> Tensor:
    """Rows top..bottom-1 of `F.interpolate(values, size, mode=mode)`, without the others.

    Args:
        values: (B, V, h, w) float32.
        size: (H, W) of the whole result.
        mode: nearest-exact, bilinear or bicubic.
        top, bottom: 0 ≤ top < bottom ≤ H.

    Returns:
        (B, V, bottom - top, W).
    """
    height = values.shape[2]
    # Resizing the identity shows how much every row of the result takes of every row given.
    weights = F.interpolate(
        torch.eye(height, device=values.device)[None, None], (size[0], height), mode=mode
    )[0, 0, top:bottom]
    return F.interpolate(weights @ values, (bottom - top, size[1]), mode=mode)
