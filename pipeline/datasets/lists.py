"""Lists of images, and what the header of a picture says."""

from __future__ import annotations

import re
import struct
from pathlib import Path

from PIL import Image

_SWAPPED = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
# What Pillow raises on damaged headers.
_DAMAGED = (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)


def check_limit(limit: int | None) -> None:
    """ValueError unless it is a number of images, or None for all."""
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1 image, got {limit}; leave it out for all")


def is_list_path(split: str) -> bool:
    """Whether a split is the path of a list of one's own; otherwise it is a name."""
    return "/" in split or "\\" in split or split.endswith(".txt")


def read_ids(path: Path) -> tuple[str, ...]:
    """The ids in a text file, one a line.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not text, empty, duplicates, or something other than ids.
    """
    if not path.is_file():
        raise FileNotFoundError(f"list of images not found: '{path}'; check the path")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"list of images '{path}' is not a text file (UTF-8)") from error
    ids: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not (name := line.strip()):
            continue
        # Ids become file names below several folders, so nothing may lead out of them.
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise ValueError(
                f"line {number} of '{path}' is {name!r}, expected one image id such as 2007_000033"
            )
        if name in ids:
            raise ValueError(
                f"'{path}' lists {name} twice, in lines {ids[name]} and {number}; remove one"
            )
        ids[name] = number
    if not ids:
        raise ValueError(f"list of images '{path}' is empty; expected one image id a line")
    return tuple(ids)


def picture_size(path: Path) -> tuple[int, int]:
    """(H, W) of a picture as `load_image` returns it, from the file's header alone.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a picture.
    """
    if not path.is_file():
        raise FileNotFoundError(f"image not found: '{path}'; is the data set complete?")
    try:
        with Image.open(path) as image:
            width, height = image.size
            swapped = image.getexif().get(0x0112) in _SWAPPED
    except _DAMAGED as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"'{path}' is damaged or no image ({reason}); copy or download it again"
        ) from error
    return (width, height) if swapped else (height, width)


def check_size(labels: Path, shape: tuple[int, ...], image: Path, size: tuple[int, int]) -> None:
    """ValueError unless a label map has the size (H, W) of its picture."""
    if shape != size:
        raise ValueError(
            f"'{labels}' is {shape[0]}×{shape[1]} pixels (H×W), but its image '{image}' is "
            f"{size[0]}×{size[1]}; they must belong together"
        )
