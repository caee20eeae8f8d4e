"""Masks as COCO's run lengths, written and read.

    {"size": [H, W], "counts": "…"}

Runs of pixels outside and inside take turns, down the columns, the first outside. As text, every
number is written in groups of five bits, lowest first, as characters from "0" on; bit 5 says that
more follow, bit 4 of the last is the sign. From the fourth on, a number is the difference to the
one two before it. Files are other people's: they are decoded here, with every number checked,
rather than by native code that trusts them.

Shapes: H×W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

_MOST_GROUPS = 7  # of a number
_MOST_PIXELS = 1 << 34  # what such a number can say, and more than any image has


def encode_rle(mask: np.ndarray) -> dict[str, Any]:
    """COCO's compressed run lengths of a bool mask (H, W), as JSON holds them."""
    from pycocotools import mask as coco  # slow to import, only needed here

    rle = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    counts = cast(bytes, rle["counts"])  # not text, as the stubs of pycocotools say
    return {"size": [int(n) for n in rle["size"]], "counts": counts.decode("ascii")}


def decode_rle(rle: object, size: Sequence[int] | None = None) -> np.ndarray:
    """The bool mask (H, W) of run lengths, compressed or not.

    Args:
        rle: a mapping with `size` and `counts`: text, or a list of whole numbers.
        size: (H, W) of the image; None takes the one that the run lengths name.

    Raises:
        ValueError: anything but run lengths of exactly that many pixels.
    """
    if not isinstance(rle, Mapping) or not {"size", "counts"} <= rle.keys():
        raise ValueError(f"no run lengths with size and counts: {_short(rle)}")
    named, counts = rle["size"], rle["counts"]
    if not _whole_numbers(named) or len(named) != 2 or min(named) < 1:
        raise ValueError(f"run lengths have size {_short(named)}, expected [height, width]")
    height, width = named
    if size is not None and (height, width) != tuple(size):
        raise ValueError(f"run lengths have size {[height, width]}, the image has {list(size)}")
    if (total := height * width) > _MOST_PIXELS:
        raise ValueError(f"run lengths have size {_short(named)}, more than any image has")
    if isinstance(counts, str | bytes):
        runs = _decode_counts(counts)
    elif _whole_numbers(counts):
        runs = np.array([min(max(n, -1), total + 1) for n in counts], np.int64)
    else:
        raise ValueError(f"counts are neither text nor whole numbers: {_short(counts)}")
    # Each by itself first: the sum of huge ones could wrap around.
    if (runs < 0).any() or (runs > total).any() or runs.sum() != total:
        raise ValueError(f"run lengths that do not add up to {height}×{width} pixels")
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(width, height).T  # column by column


def _decode_counts(text: str | bytes) -> np.ndarray:
    """Run lengths of compressed counts, int64.

    Raises:
        ValueError: characters or groups that no encoder writes.
    """
    try:
        data = text if isinstance(text, bytes) else text.encode("ascii")
    except UnicodeEncodeError:
        raise ValueError("counts with characters that are not ASCII") from None
    groups = np.frombuffer(data, np.uint8).astype(np.int64) - 48
    if not len(groups) or groups.min() < 0 or groups.max() > 63 or groups[-1] & 32:
        raise ValueError(f"counts that are not COCO's run lengths: {_short(text)}")
    ends = np.flatnonzero((groups & 32) == 0)
    starts = np.r_[0, ends[:-1] + 1]
    lengths = ends - starts + 1
    if lengths.max() > _MOST_GROUPS:
        raise ValueError("counts with a number too large for an image")
    place = np.arange(len(groups)) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((groups & 31) << (5 * place), starts)
    numbers -= np.where(groups[ends] & 16, 1 << (5 * lengths), 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def _whole_numbers(values: object) -> bool:
    return isinstance(values, list | tuple) and all(type(value) is int for value in values)


def _short(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:60]}…"
