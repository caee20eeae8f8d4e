"""Sizes of regions: pixels, or a share of the image such as "0.1%"."""

from __future__ import annotations

import math

Size = int | str  # pixels, or a share of the image: "0.1%"


def parse_size(value: Size) -> Size:
    """Pixels as a number, a share of the image as it is.

    Raises:
        ValueError: neither.
    """
    if not isinstance(value, str):
        return value
    text = "".join(value.split())
    try:
        if not text.endswith("%"):
            return int(text)
        if 0 < float(text[:-1]) <= 100:
            return text
    except ValueError:
        pass
    raise ValueError(
        f"must be pixels, such as 100, or a share of the image above 0% and up to 100%, such as "
        f"0.1%, got {value!r}"
    )


def least_pixels(value: Size, size: tuple[int, int]) -> int:
    """The least number of pixels that a region of such a size has in an image of `size` (H, W).

    Raises:
        ValueError: see `parse_size`.
    """
    parsed = parse_size(value)
    if not isinstance(parsed, str):
        return parsed
    return math.ceil(float(parsed[:-1]) * size[0] * size[1] / 100)
