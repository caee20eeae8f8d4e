"""One picture that shows a segmentation: the masks, the photograph, CLIP's dense map, a legend.

Sizes are (height, width) in pixels of the picture.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ..result import Segmentation
from .layout import (
    GAP,
    INK,
    MARGIN,
    Entry,
    counted,
    fit,
    legend,
    notes,
    picture_format,
    save_array,
)
from .letters import font
from .overlay import draw_overlay, resize_image, resize_labels
from .palette import UNNAMED, class_colors, label_colors

MAIN = (900, 1200)  # the large panel fits in here
WIDE = 1.9  # from this width : height on, the small panels lie below the large one
CAPTION = 30
NARROWEST = 760  # room for the legend


def draw_segmentation(
    image: np.ndarray, segmentation: Segmentation, *, tags: bool = True, points: bool = True
) -> np.ndarray:
    """Draw the picture.

    Args:
        image: (H, W, 3) uint8 RGB, the image that was segmented.
        segmentation: what was found in it.
        tags, points: whether class names and prompt points lie on the masks.

    Returns:
        (h, w, 3) uint8 RGB; about 1900 pixels wide for a landscape photograph.
    """
    main = fit(segmentation.size, MAIN)
    below = MARGIN + CAPTION + main[0] + GAP // 2
    aside = MARGIN + main[1] + GAP
    if main[1] / main[0] > WIDE:  # two small panels side by side under the large one
        small = fit(segmentation.size, (main[0], (main[1] - GAP) // 2))
        photo, dense = (MARGIN, below), (MARGIN + small[1] + GAP, below)
        width, bottom = main[1], below + CAPTION + small[0] + GAP // 2
    else:  # one above the other beside it
        small = fit(segmentation.size, ((main[0] - CAPTION) // 2, main[1]))
        photo, dense = (aside, MARGIN), (aside, MARGIN + CAPTION + small[0])
        width, bottom = main[1] + GAP + small[1], below
    width = max(width, NARROWEST)
    entries, missing = _classes(segmentation)
    swatches = legend(entries, width)
    key = notes(missing, segmentation.sources, width, segmentation.limits, tags=tags, points=points)

    below = bottom + GAP + swatches.height + 8
    picture = Image.new("RGB", (width + 2 * MARGIN, below + key.height + MARGIN), "white")
    draw = ImageDraw.Draw(picture)
    colors = label_colors(len(segmentation.class_names))
    for (x, y), caption, panel in (
        (
            (MARGIN, MARGIN),
            counted(len(segmentation) or "no", "mask").capitalize(),
            draw_overlay(image, segmentation, main, tags=tags, points=points),
        ),
        (photo, "Image", resize_image(image, small)),
        (dense, "CLIP's dense map", colors[resize_labels(segmentation.dense_map, small)]),
    ):
        draw.text((x, y + CAPTION - 9), caption, fill=INK, font=font(16, bold=True), anchor="ls")
        picture.paste(Image.fromarray(panel), (x, y + CAPTION))
    picture.paste(swatches, (MARGIN, bottom + GAP))
    picture.paste(key, (MARGIN, below))
    return np.array(picture)


def save_picture(
    path: str | Path,
    image: np.ndarray,
    segmentation: Segmentation,
    *,
    tags: bool = True,
    points: bool = True,
) -> None:
    """Draw the picture and write it as PNG, JPEG or WebP, by the end of the name.

    Raises:
        ValueError: another ending.
        OSError: the file cannot be written.
    """
    picture_format(path)  # refused before it is drawn
    save_array(path, draw_segmentation(image, segmentation, tags=tags, points=points))


def _classes(segmentation: Segmentation) -> tuple[list[Entry], list[str]]:
    """Found classes with colour, number of masks and share of the image; the others' names."""
    classes = len(segmentation.class_names)
    masks = np.bincount(segmentation.class_ids, minlength=classes).tolist()
    pixels, dense = (
        np.bincount(labels.ravel(), minlength=classes + 1).tolist()
        for labels in (segmentation.label_map, segmentation.dense_map)
    )
    percent = [100 * count / segmentation.label_map.size for count in pixels]
    colors = class_colors(classes).tolist()
    entries: list[Entry] = []
    missing = []
    for index, name in enumerate(segmentation.class_names):
        if masks[index] or pixels[index + 1]:
            note = f"{counted(masks[index] or 'no', 'mask')}, {percent[index + 1]:.1f} %"
            entries.append((tuple(colors[index]), name, note))
        elif dense[index + 1]:
            entries.append((tuple(colors[index]), name, "dense map only"))
        else:
            missing.append(name)
    if pixels[0]:
        entries.append((UNNAMED, "nothing named", f"{percent[0]:.1f} %"))
    return entries, missing
