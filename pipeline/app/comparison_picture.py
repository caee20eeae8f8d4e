"""One picture of a comparison: both dense maps, both sets of masks, and where the results differ.

Sizes are (height, width) in pixels of the picture.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ..drawing.layout import (
    FAINT,
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
from ..drawing.letters import font
from ..drawing.overlay import draw_overlay, resize_image, resize_labels
from ..drawing.palette import UNNAMED, class_colors, label_colors
from .compare import ARMS, Comparison

BUDGET = (1500, 2250)  # all panels with their gaps fit in here
TITLE, CAPTION = 68, 48  # heights: of the title, of two lines above a panel
DIMMED = 0.42  # brightness of the photograph under the differences

# Columns → panels in reading order; the arrangement with the largest panels wins.
_ORDERS = {
    6: ("image", "dense first", "dense second", "masks first", "masks second", "differences"),
    3: ("image", "dense first", "dense second", "differences", "masks first", "masks second"),
    2: ("image", "differences", "dense first", "dense second", "masks first", "masks second"),
    1: ("image", "dense first", "dense second", "masks first", "masks second", "differences"),
}
# Kinds of differences: told apart by the colour-blind, too, and unlike the classes' colours.
KINDS = (
    ("named only {0}", (255, 226, 90)),  # {0} and {1}: the first and the second arm
    ("named only {1}", (105, 215, 255)),
    ("named differently", (255, 150, 190)),
)


def draw_comparison(
    image: np.ndarray, comparison: Comparison, *, tags: bool = True, points: bool = True
) -> np.ndarray:
    """Draw the picture.

    Args:
        image: (H, W, 3) uint8 RGB, the image that was segmented.
        comparison: what was found in it.
        tags, points: whether class names and prompt points lie on the masks.

    Returns:
        (h, w, 3) uint8 RGB, about 2300 pixels wide unless the image is very tall.
    """
    captions = _captions(comparison)
    narrowest = max(
        math.ceil(max(font(16, bold=True).getlength(title), font(14).getlength(note)))
        for title, note in captions.values()
    )
    columns, size = _arrange(comparison.without.size, narrowest)
    step = (CAPTION + size[0] + GAP, max(size[1], narrowest) + GAP)
    width = columns * step[1] - GAP  # at least a thousand, whatever the image
    top = MARGIN + TITLE
    bottom = top + len(captions) // columns * step[0]
    kinds = kinds_of_difference(comparison.without.label_map, comparison.with_loftup.label_map)
    _, both = _wording(comparison.arms)
    entries, missing = _classes(comparison)
    sources = [source for result in comparison.results.values() for source in result.sources]
    classes = legend(entries, width, f"Masks and area, {' → '.join(both)}")
    disagreement = legend(_kinds(comparison, kinds), width, "Where the masks disagree")
    marks = {"tags": tags, "points": points}
    text = notes(missing, sources, width, comparison.without.limits, **marks)

    height = bottom + classes.height + GAP + disagreement.height + GAP + text.height + MARGIN
    page = Image.new("RGB", (width + 2 * MARGIN, height), "white")
    draw = ImageDraw.Draw(page)
    title, subtitle = _head(comparison)
    draw.text((MARGIN, MARGIN - 4), title, fill=INK, font=font(26, bold=True))
    draw.text((MARGIN, MARGIN + 34), subtitle, fill=FAINT, font=font(14))
    panels = _panels(image, comparison, kinds, size, marks)
    for number, name in enumerate(_ORDERS[columns]):
        x, y = MARGIN + number % columns * step[1], top + number // columns * step[0]
        title, note = captions[name]
        draw.text((x, y + 18), title, fill=INK, font=font(16, bold=True), anchor="ls")
        draw.text((x, y + CAPTION - 10), note, fill=FAINT, font=font(14), anchor="ls")
        page.paste(Image.fromarray(panels[name]), (x, y + CAPTION))
    for part in (classes, disagreement, text):
        page.paste(part, (MARGIN, bottom))
        bottom += part.height + GAP
    return np.array(page)


def save_comparison(
    path: str | Path,
    image: np.ndarray,
    comparison: Comparison,
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
    save_array(path, draw_comparison(image, comparison, tags=tags, points=points))


def kinds_of_difference(without: np.ndarray, with_loftup: np.ndarray) -> np.ndarray:
    """Two label maps (H, W) -> (H, W) uint8: 0 equal, then as `KINDS`.

    1 and 2 are named only without and only with LoftUp, 3 has two different names.
    """
    kinds = (without > 0).astype(np.uint8) + 2 * (with_loftup > 0).astype(np.uint8)
    kinds[without == with_loftup] = 0
    return kinds


def _arrange(size: tuple[int, int], narrowest: int) -> tuple[int, tuple[int, int]]:
    """Number of columns and size of the panels that make the most of `BUDGET`."""

    def fitted(columns: int) -> tuple[int, int]:
        rows = len(_ORDERS[columns]) // columns
        height = (BUDGET[0] - (rows - 1) * GAP) // rows - CAPTION
        return fit(size, (height, (BUDGET[1] - (columns - 1) * GAP) // columns))

    possible = [n for n in _ORDERS if n * (narrowest + GAP) - GAP <= BUDGET[1]]
    best = max(possible, key=lambda columns: math.prod(fitted(columns)))
    return best, fitted(best)


def _panels(
    image: np.ndarray,
    comparison: Comparison,
    kinds: np.ndarray,
    size: tuple[int, int],
    marks: dict[str, bool],
) -> dict[str, np.ndarray]:
    photo = resize_image(image, size)
    panels = {"image": photo}
    colors = label_colors(len(comparison.without.class_names))
    for arm, result in zip(("first", "second"), comparison.results.values(), strict=True):
        panels[f"dense {arm}"] = colors[resize_labels(result.dense_map, size)]
        panels[f"masks {arm}"] = draw_overlay(image, result, size, **marks)
    kinds = resize_labels(kinds, size)
    dimmed = (photo.mean(axis=2) * DIMMED).astype(np.uint8)
    colors = np.array([(0, 0, 0), *(color for _, color in KINDS)], np.uint8)
    panels["differences"] = np.where(kinds[..., None] > 0, colors[kinds], dimmed[..., None])
    return panels


def _captions(comparison: Comparison) -> dict[str, tuple[str, str]]:
    """Title and note of every panel."""
    height, width = comparison.without.size
    differing = 100 - comparison.metrics["agreement"]["final"]["pixel_agreement"]
    captions = {
        "image": ("Image", f"{width} × {height} pixels"),
        "differences": ("Where the masks disagree", f"{differing:.1f} % of the image"),
    }
    metrics_of = comparison.metrics["arms"].values()
    hows, _ = _wording(comparison.arms)
    for arm, how, metrics in zip(("first", "second"), hows, metrics_of, strict=True):
        masks, prompts = (counted(metrics[key], key[:-1]) for key in ("masks", "prompts"))
        named = 100 - metrics["area"]["dense"]["unnamed"]
        note = f"{masks} from {prompts}, {metrics['seconds_total']:.1f} s"
        captions[f"dense {arm}"] = (f"Dense map {how}", f"{named:.1f} % named")
        captions[f"masks {arm}"] = (f"Masks {how}", note)
    return captions


def _wording(arms: tuple[str, str]) -> tuple[tuple[str, str], tuple[str, str]]:
    """Both arms as they are said after "masks": each alone, and one after the other."""
    if arms == ARMS:
        return ("without LoftUp", "with LoftUp"), ("without", "with LoftUp")
    first, second = arms
    return (f"by {first}", f"by {second}"), (f"by {first}", second)


def _head(comparison: Comparison) -> tuple[str, str]:
    """Title, and the line below it."""
    title = " and ".join(_wording(comparison.arms)[1])
    title = title[0].upper() + title[1:]
    share = comparison.results.get("loftup", comparison.without).settings["loftup_share"]
    if "loftup" in comparison.arms and share != 1:  # mixed with bilinear scores
        title += f" ({100 * share:.0f} % of the scores)"
    dense, final = (
        f"{values['pixel_agreement']:.1f} % of the pixels (mIoU {values['mIoU']:.1f} %)"
        for values in comparison.metrics["agreement"].values()
    )
    return title, f"The dense maps agree in {dense}, the maps of the masks in {final}."


def _classes(comparison: Comparison) -> tuple[list[Entry], list[str]]:
    """The classes found, with masks and area of both arms; the names of the others."""
    results = comparison.results.values()
    areas = [metrics["area"]["final"] for metrics in comparison.metrics["arms"].values()]
    names = comparison.without.class_names
    colors = class_colors(len(names)).tolist()
    masks = [np.bincount(r.class_ids, minlength=len(names)).tolist() for r in results]
    dense = {label - 1 for r in results for label in np.unique(r.dense_map).tolist()}
    entries: list[Entry] = []
    missing = []
    for index, (name, first, second) in enumerate(zip(names, *masks, strict=True)):
        percent = " → ".join(f"{area['classes'][name]:.1f}" for area in areas)
        note = f"{first} → {counted(second, 'mask')}, {percent} %"
        if first or second or index in dense:
            note = note if first or second else "dense maps only"
            entries.append((tuple(colors[index]), name, note))
        else:
            missing.append(name)
    if any(area["unnamed"] for area in areas):
        percent = " → ".join(f"{area['unnamed']:.1f}" for area in areas)
        entries.append((UNNAMED, "nothing named", f"{percent} %"))
    return entries, missing


def _kinds(comparison: Comparison, kinds: np.ndarray) -> list[Entry]:
    """The kinds of differences, with their share of the image."""
    percent = 100 * np.bincount(kinds.ravel(), minlength=4) / kinds.size
    hows, _ = _wording(comparison.arms)
    return [
        (color, name.format(*hows), f"{share:.1f} %")
        for (name, color), share in zip(KINDS, percent[1:], strict=True)
    ]
