"""How probable each class is at every pixel, as grey PNGs or arrays: `HEATMAP_FORMATS`.

Shapes: K classes, H×W image pixels.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..files.atomic import write_atomically
from . import HEATMAP_FORMATS

_NAME_LENGTH = 60  # characters of a class name in a file name


def heatmap_files(
    folder: str | Path, class_names: Sequence[str], *, background: bool, kind: str = "png"
) -> list[Path]:
    """What `save_heatmaps` writes: `folder/000_person.png`, `folder/001_car.png`, ..."""
    ending = "npy" if kind == "npy" else "png"
    names = [*class_names, *["background"] * background]
    digits = max(3, len(str(len(names) - 1)))  # the same for all: files stay in order
    return [
        Path(folder) / f"{i:0{digits}d}_{file_part(name)}.{ending}" for i, name in enumerate(names)
    ]


def save_heatmaps(
    folder: str | Path, probs: np.ndarray, class_names: Sequence[str], *, kind: str = "png"
) -> list[Path]:
    """Write one file per class, each whole or not at all.

    Args:
        folder: of this image's maps; it is made.
        probs: (K, H, W) or (K + 1, H, W) float in 0…1, as in `Segmentation`; the background is
            last.
        class_names: K names.
        kind: of `HEATMAP_FORMATS`.

    Returns:
        The files, in the order of the classes; that of the background last.

    Raises:
        ValueError: no such kind.
        OSError: a file cannot be written.
    """
    if kind not in HEATMAP_FORMATS:
        raise ValueError(f"no heat map format {kind!r}; valid: {', '.join(HEATMAP_FORMATS)}")
    background = len(probs) > len(class_names)
    paths = heatmap_files(folder, class_names, background=background, kind=kind)
    for path, values in zip(paths, probs, strict=True):
        data = io.BytesIO()
        if kind == "npy":
            np.save(data, values.astype(np.float32))
        else:
            grey = np.uint8 if kind == "png" else np.uint16
            top = np.iinfo(grey).max
            levels = np.rint(values * np.float64(top)).clip(0, top).astype(grey)
            Image.fromarray(levels).save(data, format="PNG")
        write_atomically(path, data.getvalue())
    return paths


def file_part(name: str) -> str:
    """A class name as part of a file name: letters and digits of any script, the rest as "_"."""
    return "".join(c if c.isalnum() or c in "-." else "_" for c in name)[:_NAME_LENGTH]
