"""One picture that shows a segmentation: the masks, the photograph, CLIP's dense map, a legend.

Sizes are (height, width) in pixels of the picture.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ..files.atomic import write_atomically
from ..result import Segmentation
from .overlay import (
    UNNAMED,
    draw_overlay,
    font,
    label_colors,
    resize_image,
    resize_labels,
    shorten,
)
from .palette import class_colors

MAIN = (900, 1200)  # the large panel fits in here
THINNEST = 32  # a panel's short side; images of a few rows are stretched to it
WIDE = 1.9  # from this width : height on, the small panels lie below the large one
MARGIN, GAP, CAPTION = 28, 16, 30
NARROWEST = 760  # room for the legend

_INK, _FAINT = (28, 28, 30), (110, 112, 118)
_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def draw_segmentation(
    image: np.ndarray, segmentation: Segmentation, *, title: str | None = None
) -> np.ndarray:
    """Draw the picture.

    Args:
        image: (H, W, 3) uint8 RGB, the image that was segmented.
        segmentation: what was found in it.
        title: a line above everything.

    Returns:
        (h, w, 3) uint8 RGB; about 1900 pixels wide for a landscape photograph.
    """
    main = fit(segmentation.size, MAIN)
    wide = main[1] / main[0] > WIDE
    if wide:  # two small panels side by side under the large one
        small = fit(segmentation.size, (main[0], (main[1] - GAP) // 2))
    else:  # one above the other beside it
        small = fit(segmentation.size, ((main[0] - CAPTION) // 2, main[1]))
    top = MARGIN + (44 if title else 0)
    below = top + CAPTION + main[0] + GAP // 2
    aside = MARGIN + main[1] + GAP
    places = {  # name: (x, y) of the caption
        "main": (MARGIN, top),
        "photo": (MARGIN, below) if wide else (aside, top),
        "dense": (MARGIN + small[1] + GAP, below) if wide else (aside, top + CAPTION + small[0]),
    }
    width = main[1] if wide else main[1] + GAP + small[1]
    width = max(width, NARROWEST)
    bottom = below + (CAPTION + small[0] + GAP // 2 if wide else 0)
    legend = _draw_legend(segmentation, width)

    picture = Image.new("RGB", (width + 2 * MARGIN, bottom + GAP + legend.height + MARGIN), "white")
    draw = ImageDraw.Draw(picture)
    if title:
        draw.text((MARGIN, MARGIN - 4), shorten(title, 120), fill=_INK, font=font(26, bold=True))
    count = len(segmentation)
    dense = label_colors()[resize_labels(segmentation.dense_map, small)]
    panels = {
        "main": (
            _counted(count).capitalize(),
            draw_overlay(image, segmentation, main),
        ),
        "photo": ("Image", resize_image(image, small)),
        "dense": ("CLIP's dense map", dense),
    }
    for name, (caption, panel) in panels.items():
        x, y = places[name]
        draw.text((x, y + CAPTION - 9), caption, fill=_INK, font=font(16, bold=True), anchor="ls")
        picture.paste(Image.fromarray(panel), (x, y + CAPTION))
    picture.paste(legend, (MARGIN, bottom + GAP))
    return np.array(picture)


def save_picture(
    path: str | Path, image: np.ndarray, segmentation: Segmentation, *, title: str | None = None
) -> None:
    """Draw the picture and write it as PNG, JPEG or WebP, by the end of the name.

    Raises:
        ValueError: another ending.
        OSError: the file cannot be written.
    """
    kind = picture_format(path)
    save_array(path, draw_segmentation(image, segmentation, title=title), kind)


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


def save_array(path: str | Path, picture: np.ndarray, kind: str | None = None) -> None:
    """Write an RGB array (h, w, 3) uint8 whole or not at all; `kind` by default from the name."""
    options = {"quality": 92} if kind != "PNG" else {}
    data = io.BytesIO()
    Image.fromarray(picture).save(data, format=kind or picture_format(path), **options)
    write_atomically(path, data.getvalue())


def fit(size: tuple[int, int], limits: tuple[int, int]) -> tuple[int, int]:
    """`size` scaled up or down into `limits`, its ratio kept unless a side got below `THINNEST`."""
    factor = min(limits[0] / size[0], limits[1] / size[1])
    height, width = (max(THINNEST, round(side * factor)) for side in size)
    return height, width


def _draw_legend(segmentation: Segmentation, width: int) -> Image.Image:
    """Found classes with colour, number of masks and share of the image; the rest by name."""
    letters, row = font(15), 28
    classes = len(segmentation.class_names)
    masks = np.bincount(segmentation.class_ids, minlength=classes)
    pixels = np.bincount(segmentation.label_map.ravel(), minlength=classes + 1)
    percent = 100 * pixels / segmentation.label_map.size
    dense = np.bincount(segmentation.dense_map.ravel(), minlength=classes + 1)
    entries = []
    for index, name in enumerate(segmentation.class_names):
        if masks[index] or pixels[index + 1]:
            entries.append(
                (index, shorten(name, 32), f"{_counted(masks[index])}, {percent[index + 1]:.1f} %")
            )
        elif dense[index + 1]:
            entries.append((index, shorten(name, 32), "dense map only"))
    shown = {index for index, _, _ in entries}
    if pixels[0]:
        entries.append((-1, "nothing named", f"{percent[0]:.1f} %"))
    column = max(30 + letters.getlength(f"{name}  {note}") for _, name, note in entries) + 24
    columns = int(max(1, min(len(entries), width // column)))
    rows = -(-len(entries) // columns)

    missing = [shorten(n, 32) for i, n in enumerate(segmentation.class_names) if i not in shown]
    notes = _wrap("Not found: " + ", ".join(missing), width, 3) if missing else []
    if len(segmentation):
        key = "Dots: the points given to SAM 2. Tags: class and predicted IoU."
        if "region" in segmentation.sources:
            key += " Dotted outline: CLIP's region, where no mask of SAM 2 fitted it."
        notes += _wrap(key, width, 3)

    picture = Image.new("RGB", (width, row * rows + 24 * len(notes) + 8), "white")
    draw = ImageDraw.Draw(picture)
    for number, (index, name, note) in enumerate(entries):
        x, y = number // rows * column, number % rows * row + row / 2  # down, then across
        color = UNNAMED if index < 0 else tuple(int(c) for c in class_colors()[index])
        draw.rounded_rectangle((x, y - 9, x + 20, y + 9), radius=4, fill=color)
        draw.text((x + 30, y), name, fill=_INK, font=letters, anchor="lm")
        after = x + 30 + letters.getlength(name + "  ")
        draw.text((after, y), note, fill=_FAINT, font=letters, anchor="lm")
    for number, line in enumerate(notes):
        y = row * rows + 8 + 24 * number + 12
        draw.text((0, y), line, fill=_FAINT, font=font(14), anchor="lm")
    return picture


def _counted(masks: int) -> str:
    return "1 mask" if masks == 1 else f"{masks or 'no'} masks"


def _wrap(text: str, width: int, limit: int) -> list[str]:
    """`text` in at most `limit` lines of `width` pixels; "…" if it is cut."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font(14).getlength(longer + " …") > width:
            if len(lines) == limit:
                return [*lines[:-1], lines[-1] + " …"]
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
