"""How probable each class is at every pixel, as pictures.

The PNGs have a palette: a pixel's value is 255 × the probability, its colour that of a colour map
from black (0) over red to pale yellow (1), the same in all pictures.

Shapes: K classes, H×W image pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from ..files.label_png import write_index_png

_NAME_LENGTH = 60  # characters of a class name in a file name


def heatmap_files(
    folder: str | Path, class_names: Sequence[str], *, background: bool
) -> list[Path]:
    """What `save_heatmaps` writes: `folder/000_person.png`, `folder/001_car.png`, ..."""
    names = [*class_names, *["background"] * background]
    digits = max(3, len(str(len(names) - 1)))  # the same for all: files stay in order
    return [Path(folder) / f"{i:0{digits}d}_{_file_name(name)}.png" for i, name in enumerate(names)]


def save_heatmaps(folder: str | Path, probs: np.ndarray, class_names: Sequence[str]) -> list[Path]:
    """Write one PNG per class, each whole or not at all.

    Args:
        folder: of this image's maps; it is made.
        probs: (K, H, W) or (K + 1, H, W) float in 0…1, as in `Segmentation`; the background is
            last.
        class_names: K names.

    Returns:
        The files, in the order of the classes; that of the background last.

    Raises:
        OSError: a file cannot be written.
    """
    paths = heatmap_files(folder, class_names, background=len(probs) > len(class_names))
    levels = np.arange(256, dtype=np.uint8)[:, None]
    palette = cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[:, 0, ::-1]  # BGR to RGB
    for path, values in zip(paths, probs, strict=True):
        write_index_png(path, np.rint(values * 255).clip(0, 255).astype(np.uint8), palette)
    return paths


def _file_name(name: str) -> str:
    """A class name as part of a file name: letters and digits of any script, the rest as "_"."""
    return "".join(c if c.isalnum() or c in "-." else "_" for c in name)[:_NAME_LENGTH]
