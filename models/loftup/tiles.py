"""Geometry of the tiles that an image is worked through in.

Shapes: H W pixels of the image, h w of a window, D channels.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from .guide import Window


def split(window: Window, side: int) -> Iterator[Window]:
    """Tiles of about equal sides, at most `side`, multiples of four but for the last."""
    height, width = (
        -(-length // (4 * -(-length // side))) * 4 for length in (window.height, window.width)
    )
    for top in range(0, window.height, height):
        for left in range(0, window.width, width):
            yield Window(
                window.top + top,
                window.left + left,
                min(height, window.height - top),
                min(width, window.width - left),
            )


def grow(window: Window, halo: int) -> Window:
    top, left, height, width = window
    return Window(top - halo, left - halo, height + 2 * halo, width + 2 * halo)


def cut(window: Window, size: tuple[int, int]) -> tuple[Window, tuple[int, ...]]:
    """The part inside an image of (H, W), and the padding of (h, w, channels) to get the rest."""
    top, left = max(0, window.top), max(0, window.left)
    bottom = min(size[0], window.top + window.height)
    right = min(size[1], window.left + window.width)
    padding = (0, 0, left - window.left, window.left + window.width - right,
               top - window.top, window.top + window.height - bottom)  # fmt: skip
    return Window(top, left, bottom - top, right - left), padding


def blank_outside(x: Tensor, window: Window, size: tuple[int, int]) -> None:
    """Set the pixels of (h, w, D) to zero that lie outside an image of (H, W)."""
    inside, (_, _, left, _, top, _) = cut(window, size)
    x[:top] = 0
    x[top + inside.height :] = 0
    x[:, :left] = 0
    x[:, left + inside.width :] = 0
