"""Read the masks of SA-1B (Kirillov et al. 2023): one JSON file of COCO run lengths per image.

    {"image": {"height": …, "width": …, …},
     "annotations": [{"segmentation": {"size": [H, W], "counts": "…"}, "area": …, …}, …]}

The files are other people's: counts are decoded here, with every number checked, rather than by
native code that trusts them.

Shapes: H×W pixels.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .samples import NO_MASK

Report = Callable[[str, str], None]  # what is left out, and why


def read_sa1b(path: Path, size: tuple[int, int], report: Report) -> np.ndarray:
    """The masks of one file as one mask map; where masks overlap, the smaller is on top.

    Args:
        path: the JSON file.
        size: (H, W) of its image.
        report: told of every mask that is left out, by the file's name and the mask's number.

    Returns:
        (H, W) int64 in 0…M-1, -1 where no mask is.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is not in SA-1B's format, or no mask of it is usable.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path.name} is missing beside its image")
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path.name} is no JSON ({error})") from error
    annotations = content.get("annotations") if isinstance(content, dict) else None
    if not isinstance(annotations, list):
        raise ValueError(f'{path.name} has no list "annotations" as SA-1B\'s files have')
    masks = []
    for i, annotation in enumerate(annotations):
        try:
            masks.append(decode_mask(annotation, size))
        except ValueError as error:
            report(f"{path.name}, mask {i}", str(error))
    if not masks:
        raise ValueError(f"{path.name} holds no usable mask of {len(annotations)}")
    labels = np.full(size, NO_MASK, np.int64)
    for i, mask in enumerate(sorted(masks, key=np.count_nonzero, reverse=True)):
        labels[mask] = i
    return labels


def decode_mask(annotation: Any, size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool mask of one annotation; ValueError says what is wrong with it."""
    rle = annotation.get("segmentation") if isinstance(annotation, dict) else None
    if not isinstance(rle, dict) or "counts" not in rle or "size" not in rle:
        raise ValueError("no segmentation with size and counts")
    if rle["size"] != list(size):
        raise ValueError(f"size {rle['size']}, the image has {list(size)}")
    counts = rle["counts"]
    if isinstance(counts, str):
        runs = decode_counts(counts)
    elif isinstance(counts, list) and counts and all(type(n) is int for n in counts):
        if any(abs(n) > size[0] * size[1] for n in counts):
            raise ValueError("run lengths that do not fit the size")
        runs = np.array(counts, np.int64)
    else:
        raise ValueError("counts are neither text nor whole numbers")
    if (runs < 0).any() or runs.sum() != size[0] * size[1]:
        raise ValueError(f"run lengths that do not add up to {size[0]}×{size[1]} pixels")
    if not runs[1::2].any():
        raise ValueError("no pixel")
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(size[::-1]).T  # column by column


def decode_counts(text: str) -> np.ndarray:
    """Run lengths of COCO's compressed counts, int64.

    Every number is written in groups of five bits, lowest first, as characters from "0" on; bit 5
    says that more follow, bit 4 of the last is the sign. From the fourth on, a number is the
    difference to the one two before it.

    Raises:
        ValueError: characters or groups that no encoder writes.
    """
    try:
        groups = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError:
        raise ValueError("counts with characters that are not ASCII") from None
    if not len(groups) or groups.min() < 0 or groups.max() > 63 or groups[-1] & 32:
        raise ValueError("counts that are not COCO's run lengths")
    last = (groups & 32) == 0
    ends = np.flatnonzero(last)
    starts = np.r_[0, ends[:-1] + 1]
    lengths = ends - starts + 1
    if lengths.max() > 7:  # 35 bits: more than any image has pixels
        raise ValueError("counts with a number too large for an image")
    place = np.arange(len(groups)) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((groups & 31) << (5 * place), starts)
    numbers -= np.where(groups[ends] & 16, 1 << (5 * lengths), 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers
