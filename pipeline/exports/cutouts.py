"""What each mask shows, cut out: transparent PNGs, as large as the mask's box."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from ..files.atomic import write_atomically
from ..files.image_files import MARKER, mark_folder
from ..result import Segmentation
from .heatmaps import file_part


def save_cutouts(folder: str | Path, image: np.ndarray, result: Segmentation) -> list[Path]:
    """Write `folder/000_person.png`, `folder/001_car.png`, ...: RGBA, opaque where the mask is.

    Cutouts of an earlier result are removed, if the folder was made for them: in others there may
    be photographs.

    Args:
        folder: of this image's cutouts; it is made.
        image: (H, W, 3) uint8 RGB.
        result: what was found in it. A mask without pixels has no file.

    Raises:
        OSError: a file cannot be written.
    """
    folder = Path(folder)
    if not folder.exists():
        mark_folder(folder)
    paths = []
    for index, found in enumerate(result):
        if not found.mask.any():
            continue
        paths.append(folder / f"{index:03d}_{file_part(found.class_name)}.png")
        data = io.BytesIO()
        Image.fromarray(found.cutout(image)).save(data, format="PNG")
        write_atomically(paths[-1], data.getvalue())
    if (folder / MARKER).exists():
        for old in {*folder.glob("[0-9][0-9][0-9]*_*.png")} - {*paths}:
            old.unlink()
    return paths
