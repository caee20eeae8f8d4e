"""Read the masks of SA-1B (Kirillov et al. 2023): one JSON file of COCO run lengths per image.

    {"image": {"height": …, "width": …, …},
     "annotations": [{"segmentation": {"size": [H, W], "counts": "…"}, "area": …, …}, …]}

Shapes: H×W pixels.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ...files.rle import decode_rle
from .masks import regions_of

Report = Callable[[str, str], None]  # what is left out, and why


def read_sa1b(path: Path, size: tuple[int, int], report: Report) -> tuple[np.ndarray, np.ndarray]:
    """The masks of one file, which overlap, as regions.

    Args:
        path: the JSON file.
        size: (H, W) of its image.
        report: told of every mask that is left out, by the file's name and the mask's number.

    Returns:
        (H, W) int64 map of R regions, -1 where no mask is, and (M, R) bool: which regions every
        mask is made of, in the order of the file.

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
    return regions_of(masks, size)


def decode_mask(annotation: Any, size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool mask of one annotation; ValueError says what is wrong with it."""
    if not isinstance(annotation, dict) or "segmentation" not in annotation:
        raise ValueError("no segmentation")
    mask = decode_rle(annotation["segmentation"], size)
    if not mask.any():
        raise ValueError("no pixel")
    return mask
