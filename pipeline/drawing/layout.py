"""What pictures are laid out with: letters, legends, notes, sizes; and their files.

Sizes are (height, width) in pixels of the picture.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ..files.atomic import write_atomically
from .letters import draw_text, font, text_length

MARGIN, GAP = 28, 16
INK, FAINT = (28, 28, 30), (110, 112, 118)
THINNEST = 32  # a panel's short side; images of a few rows are stretched to it
_ROW, _LINE = 28, 24  # heights: of a legend's row, of a line of text
_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}

Entry = tuple[tuple[int, ...], str, str]  # of a legend: colour, name, note


def shorten(name: str, length: int) -> str:
    """`name` on one line of at most `length` characters, printable whatever it holds."""
    name = " ".join(name.encode("utf-8", errors="replace").decode("utf-8").split())
    return name if len(name) <= length else name[: length - 1].rstrip() + "…"


def counted(number: int | str, what: str) -> str:
    """ "1 mask", "3 masks", "no masks"."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def legend(entries: Sequence[Entry], width: int, title: str = "") -> Image.Image:
    """Swatches with name and note, down and then across, under a title if there is one."""
    top = _LINE if title else 0
    entries = [(color, shorten(name, 32), note) for color, name, note in entries]
    column = max(30 + text_length(f"{name}  {note}", 15) for _, name, note in entries) + 24
    rows = -(-len(entries) // int(max(1, min(len(entries), width // column))))
    picture = Image.new("RGB", (width, top + _ROW * rows), "white")
    draw = ImageDraw.Draw(picture)
    draw.text((0, _LINE / 2), title, fill=INK, font=font(14, bold=True), anchor="lm")
    for number, (color, name, note) in enumerate(entries):
        x, y = number // rows * column, top + (number % rows + 0.5) * _ROW
        draw.rounded_rectangle((x, y - 9, x + 20, y + 9), radius=4, fill=color)
        draw_text(draw, (x + 30, y), name, 15, INK)
        after = x + 30 + text_length(name + "  ", 15)
        draw_text(draw, (after, y), note, 15, FAINT)
    return picture


def notes(
    missing: Sequence[str],
    sources: Collection[str],
    width: int,
    limits: str = "",
    *,
    tags: bool = True,
    points: bool = True,
) -> Image.Image:
    """Lines of text: the classes that were not found, and what the signs on the masks mean.

    Args:
        missing: names of classes.
        sources: of all masks, as in `Segmentation.sources`.
        width: of the lines.
        limits: see `Segmentation.limits`.
        tags, points: whether they are on the masks.
    """
    lines = []
    if limits:
        lines += wrap(f"{limits}.", width)
    if missing:
        lines += wrap("Not found: " + ", ".join(shorten(name, 32) for name in missing), width)
    if sources:
        signs = {
            "Dots: the points given to SAM 2.": points,
            "Tags: class and predicted IoU.": tags,
            "Dotted outline: CLIP's region, where no mask of SAM 2 fitted it.": "region" in sources,
        }
        if key := " ".join(text for text, there in signs.items() if there):
            lines += wrap(key, width)
    picture = Image.new("RGB", (width, _LINE * len(lines)), "white")
    draw = ImageDraw.Draw(picture)
    for number, line in enumerate(lines):
        draw_text(draw, (0, _LINE * (number + 0.5)), line, 14, FAINT)
    return picture


def wrap(text: str, width: int) -> list[str]:
    """`text` in at most three lines of `width` pixels; "…" if it is cut."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and text_length(longer + " …", 14) > width:
            if len(lines) == 3:
                return [*lines[:-1], lines[-1] + " …"]
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def fit(size: tuple[int, int], limits: tuple[int, int]) -> tuple[int, int]:
    """`size` scaled up or down into `limits`, its ratio kept unless a side got below `THINNEST`."""
    factor = min(limits[0] / size[0], limits[1] / size[1])
    height, width = (max(THINNEST, round(side * factor)) for side in size)
    return height, width


def picture_format(path: str | Path) -> str:
    """Pillow's name of the format that `path` ends in; to be asked before a long computation.

    Raises:
        ValueError: another ending.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _FORMATS:
        raise ValueError(
            f"cannot write a picture to '{path}': its name must end in {', '.join(_FORMATS)}"
        )
    return _FORMATS[suffix]


def save_array(path: str | Path, picture: np.ndarray) -> None:
    """Write an RGB array (h, w, 3) uint8 whole or not at all, in the format of the name.

    Raises:
        ValueError: another ending than `picture_format` knows.
        OSError: the file cannot be written.
    """
    kind = picture_format(path)
    options = {"quality": 92} if kind != "PNG" else {}
    data = io.BytesIO()
    Image.fromarray(picture).save(data, format=kind, **options)
    write_atomically(path, data.getvalue())
