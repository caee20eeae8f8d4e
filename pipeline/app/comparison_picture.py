"""One picture of a comparison: both dense maps, both sets of masks, and where the results differ.

Sizes are (height, width) in pixels of the picture.
"""

from __future__ import annotations

import math
import textwrap
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ..drawing.overlay import (
    UNNAMED,
    draw_overlay,
    font,
    label_colors,
    resize_image,
    resize_labels,
    shorten,
)
from ..drawing.palette import class_colors
from ..drawing.picture import (
    GAP,
    MARGIN,
    fit,
    picture_format,
    save_array,
)
from .compare import ARMS, Comparison

BUDGET = (1500, 2250)  # all panels with their gaps fit in here
CAPTION = 48  # two lines above a panel
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
_INK, _FAINT = (28, 28, 30), (110, 112, 118)
_ROW, _LINE, _TITLE = 28, 24, 68  # heights: of a legend's row, a line of notes, the title

Entry = tuple[tuple[int, ...], str, str]  # of a legend: colour, name, note


def draw_comparison(image: np.ndarray, comparison: Comparison) -> np.ndarray:
    """Draw the picture.

    Args:
        image: (H, W, 3) uint8 RGB, the image that was segmented.
        comparison: what was found in it.

    Returns:
        (h, w, 3) uint8 RGB, about 2300 pixels wide unless the image is very tall.
    """
    captions = _captions(comparison)
    narrowest = max(_text_width(*caption) for caption in captions.values())
    columns, size = _arrange(comparison.without.size, narrowest)
    step = (CAPTION + size[0] + GAP, max(size[1], narrowest) + GAP)
    width = columns * step[1] - GAP  # at least a thousand, whatever the image
    top = MARGIN + _TITLE
    bottom = top + len(captions) // columns * step[0]
    below = [
        _legend(f"Masks and area, {_names(comparison, ' → ')}", _classes(comparison), width),
        _legend("Where the masks disagree", _kinds(comparison), width),
        _notes(comparison, width),
    ]
    height = bottom + sum(part.height for part in below) + MARGIN

    page = Image.new("RGB", (width + 2 * MARGIN, height), "white")
    draw = ImageDraw.Draw(page)
    title = _names(comparison, " and ")
    title = title[0].upper() + title[1:]
    share = comparison.results.get("loftup", comparison.without).settings["loftup_share"]
    if "loftup" in comparison.arms and share != 1:  # mixed with bilinear scores
        title += f" ({100 * share:.0f} % of the scores)"
    draw.text((MARGIN, MARGIN - 4), title, fill=_INK, font=font(26, bold=True))
    draw.text((MARGIN, MARGIN + 34), _subtitle(comparison), fill=_FAINT, font=font(14))
    panels = _panels(image, comparison, size)
    for number, name in enumerate(_ORDERS[columns]):
        x, y = MARGIN + number % columns * step[1], top + number // columns * step[0]
        title, note = captions[name]
        draw.text((x, y + 18), title, fill=_INK, font=font(16, bold=True), anchor="ls")
        draw.text((x, y + CAPTION - 10), note, fill=_FAINT, font=font(14), anchor="ls")
        page.paste(Image.fromarray(panels[name]), (x, y + CAPTION))
    for part in below:
        page.paste(part, (MARGIN, bottom))
        bottom += part.height
    return np.array(page)


def save_comparison(path: str | Path, image: np.ndarray, comparison: Comparison) -> None:
    """Draw the picture and write it as PNG, JPEG or WebP, by the end of the name.

    Raises:
        ValueError: another ending.
        OSError: the file cannot be written.
    """
    kind = picture_format(path)
    save_array(path, draw_comparison(image, comparison), kind)


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
    image: np.ndarray, comparison: Comparison, size: tuple[int, int]
) -> dict[str, np.ndarray]:
    photo = resize_image(image, size)
    panels = {"image": photo}
    for arm, result in zip(("first", "second"), comparison.results.values(), strict=True):
        panels[f"dense {arm}"] = label_colors()[resize_labels(result.dense_map, size)]
        panels[f"masks {arm}"] = draw_overlay(image, result, size)
    kinds = kinds_of_difference(comparison.without.label_map, comparison.with_loftup.label_map)
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
    for arm, how, metrics in zip(("first", "second"), _hows(comparison), metrics_of, strict=True):
        masks, prompts = (_counted(metrics[key], key[:-1]) for key in ("masks", "prompts"))
        named = 100 - metrics["area"]["dense"]["unnamed"]
        captions[f"dense {arm}"] = (f"Dense map {how}", f"{named:.1f} % named")
        captions[f"masks {arm}"] = (
            f"Masks {how}",
            f"{masks} from {prompts}, {metrics['seconds_total']:.1f} s",
        )
    return captions


def _hows(comparison: Comparison) -> tuple[str, str]:
    """What sets each arm apart, as it is said after "masks"."""
    if comparison.arms == ARMS:
        return "without LoftUp", "with LoftUp"
    first, second = comparison.arms
    return f"by {first}", f"by {second}"


def _names(comparison: Comparison, joint: str) -> str:
    """Both arms: "without and with LoftUp", "by jbu and guided"."""
    if comparison.arms == ARMS:
        return f"without{joint}with LoftUp"
    return "by " + joint.join(comparison.arms)


def _text_width(title: str, note: str) -> int:
    return math.ceil(max(font(16, bold=True).getlength(title), font(14).getlength(note)))


def _subtitle(comparison: Comparison) -> str:
    dense, final = (
        f"{values['pixel_agreement']:.1f} % of the pixels (mIoU {values['mIoU']:.1f} %)"
        for values in comparison.metrics["agreement"].values()
    )
    return f"The dense maps agree in {dense}, the maps of the masks in {final}."


def _found(comparison: Comparison) -> list[int]:
    """The classes that a mask or a dense map of either result has."""
    results = comparison.results.values()
    ids = [np.unique(result.dense_map).astype(np.int64) - 1 for result in results]
    ids += [result.class_ids for result in results]
    return sorted(set(np.concatenate(ids).tolist()) - {-1})


def _classes(comparison: Comparison) -> list[Entry]:
    """The classes found, with masks and area without → with LoftUp."""
    areas = [metrics["area"]["final"] for metrics in comparison.metrics["arms"].values()]
    entries: list[Entry] = []
    for index in _found(comparison):
        name = comparison.without.class_names[index]
        masks = [int((r.class_ids == index).sum()) for r in comparison.results.values()]
        percent = " → ".join(f"{area['classes'][name]:.1f}" for area in areas)
        note = f"{masks[0]} → {_counted(masks[1], 'mask')}, {percent} %"
        color = tuple(int(c) for c in class_colors()[index])
        entries.append((color, shorten(name, 32), note if any(masks) else "dense maps only"))
    if any(area["unnamed"] for area in areas):
        percent = " → ".join(f"{area['unnamed']:.1f}" for area in areas)
        entries.append((UNNAMED, "nothing named", f"{percent} %"))
    return entries


def _kinds(comparison: Comparison) -> list[Entry]:
    """The kinds of differences, with their share of the image."""
    kinds = kinds_of_difference(comparison.without.label_map, comparison.with_loftup.label_map)
    percent = 100 * np.bincount(kinds.ravel(), minlength=4) / kinds.size
    return [
        (color, name.format(*_hows(comparison)), f"{share:.1f} %")
        for (name, color), share in zip(KINDS, percent[1:], strict=True)
    ]


def _notes(comparison: Comparison, width: int) -> Image.Image:
    found = _found(comparison)
    names = comparison.without.class_names
    missing = [shorten(name, 32) for i, name in enumerate(names) if i not in found]
    lines = _wrap("Not found: " + ", ".join(missing), width, 3) if missing else []
    sources = {source for result in comparison.results.values() for source in result.sources}
    if sources:
        key = "Dots: the points given to SAM 2. Tags: class and predicted IoU."
        if "region" in sources:
            key += " Dotted outline: CLIP's region, where no mask of SAM 2 fitted it."
        lines += _wrap(key, width, 3)
    picture = Image.new("RGB", (width, max(1, _LINE * len(lines))), "white")
    for number, line in enumerate(lines):
        y = _LINE * (number + 0.5)
        ImageDraw.Draw(picture).text((0, y), line, fill=_FAINT, font=font(14), anchor="lm")
    return picture


def _legend(title: str, entries: list[Entry], width: int) -> Image.Image:
    """Swatches with name and note under a title, down and then across."""
    letters = font(15)
    column = max(30 + letters.getlength(f"{name}  {note}") for _, name, note in entries) + 24
    rows = -(-len(entries) // int(max(1, min(len(entries), width // column))))
    picture = Image.new("RGB", (width, _LINE + _ROW * rows + GAP), "white")
    draw = ImageDraw.Draw(picture)
    draw.text((0, _LINE / 2), title, fill=_INK, font=font(14, bold=True), anchor="lm")
    for number, (color, name, note) in enumerate(entries):
        x, y = number // rows * column, _LINE + (number % rows + 0.5) * _ROW
        draw.rounded_rectangle((x, y - 9, x + 20, y + 9), radius=4, fill=color)
        draw.text((x + 30, y), name, fill=_INK, font=letters, anchor="lm")
        after = x + 30 + letters.getlength(name + "  ")
        draw.text((after, y), note, fill=_FAINT, font=letters, anchor="lm")
    return picture


def _wrap(text: str, width: int, limit: int) -> list[str]:
    """`text` in at most `limit` lines of about `width` pixels; "…" if it is cut."""
    letters = max(1, int(0.93 * width * len(text) / font(14).getlength(text)))
    return textwrap.wrap(text, letters, max_lines=limit, placeholder=" …")


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
