"""A contact sheet of the images on which one arm beats or loses to the baseline most.

Label maps: 0 background, i + 1 the i-th class, 255 void. Sizes are (height, width).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from ...drawing.layout import FAINT, INK, fit, shorten
from ...drawing.letters import font
from ...drawing.overlay import resize_image
from ...drawing.palette import voc_palette
from ..metrics import IGNORE
from .numbers import number, signed

CELL = (240, 320)  # a panel fits in here
MARGIN, GAP = 24, 10
MOST = 4  # wins, and as many losses

# Of the map of differences; green and red as colour-blind people tell them apart.
OTHER_RIGHT, BASELINE_RIGHT = (0, 158, 115), (213, 94, 0)
BOTH_WRONG, VOID = (240, 228, 66), (150, 150, 150)
_BOTH_RIGHT = (222, 222, 222)  # the pale photograph, in the legend
_STRENGTH = 0.8  # of a class's colour over the pale photograph


@dataclass(frozen=True, kw_only=True)
class Row:
    """One image of the sheet."""

    id: str
    image: np.ndarray  # (H, W, 3) uint8 RGB
    truth: np.ndarray  # (H, W) labels, as are both predictions
    baseline: np.ndarray
    other: np.ndarray
    baseline_score: float  # mIoU in this image, percent
    other_score: float


def pick(
    other: Mapping[str, float | None], baseline: Mapping[str, float | None]
) -> tuple[list[str], list[str]]:
    """The `MOST` images on which an arm beats and loses to the baseline most.

    Args:
        other: mIoU of the arm by image; None where an image has none.
        baseline: that of the baseline, in the same images.

    Returns:
        Ids of the wins and of the losses, the largest difference first, equal ones by id.
    """
    # Rounded, so that sums of binary fractions break no ties.
    gains = {
        image_id: round(score - base, 6)
        for image_id, score in other.items()
        if score is not None and (base := baseline[image_id]) is not None
    }
    order = sorted(gains, key=lambda image_id: (-abs(gains[image_id]), image_id))
    wins = [image_id for image_id in order if gains[image_id] > 0]
    losses = [image_id for image_id in order if gains[image_id] < 0]
    return wins[:MOST], losses[:MOST]


def draw_contact_sheet(
    rows: Sequence[Row], *, arm: str, baseline: str, labels: Sequence[str]
) -> np.ndarray:
    """Draw the sheet.

    Args:
        rows: from top to bottom.
        arm: name of the arm whose predictions are `Row.other`.
        baseline: name of the other arm.
        labels: names of the labels, `labels[0]` is the background.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    width = 2 * MARGIN + 5 * CELL[1] + 4 * GAP
    strips = [_draw_head(width, arm, baseline), *(_draw_row(row, width, labels) for row in rows)]
    picture = Image.new("RGB", (width, sum(strip.height for strip in strips)), "white")
    y = 0
    for strip in strips:
        picture.paste(strip, (0, y))
        y += strip.height
    return np.asarray(picture)


def draw_labels(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """VOC's colours of (H, W) labels over the pale, grey photograph; (H, W, 3) uint8."""
    pale = _pale(image)
    drawn = (1 - _STRENGTH) * pale + _STRENGTH * voc_palette()[labels]
    drawn[labels == 0] = pale[labels == 0]
    drawn[labels == IGNORE] = voc_palette()[IGNORE]
    return drawn.round().astype(np.uint8)


def draw_differences(row: Row) -> np.ndarray:
    """Who is right where, over the pale photograph; (H, W, 3) uint8."""
    drawn = _pale(row.image)
    baseline, other = row.baseline == row.truth, row.other == row.truth
    drawn[other & ~baseline] = OTHER_RIGHT
    drawn[baseline & ~other] = BASELINE_RIGHT
    drawn[~baseline & ~other] = BOTH_WRONG
    drawn[row.truth == IGNORE] = VOID
    return drawn.round().astype(np.uint8)


def _pale(image: np.ndarray) -> np.ndarray:
    grey = image @ np.array([0.299, 0.587, 0.114])
    return np.repeat((0.4 * grey + 0.6 * 255)[..., None], 3, axis=2)


def _draw_head(width: int, arm: str, baseline: str) -> Image.Image:
    """Title, what the colours of the last column mean, headings of the columns."""
    picture = Image.new("RGB", (width, 128), "white")
    draw = ImageDraw.Draw(picture)
    title = shorten(f"{arm} against {baseline}: the images won and lost most", 110)
    draw.text((MARGIN, 20), title, fill=INK, font=font(26, bold=True))
    entries = [
        (OTHER_RIGHT, f"only {arm} is right"),
        (BASELINE_RIGHT, f"only {baseline} is right"),
        (_BOTH_RIGHT, "both are right"),
        (BOTH_WRONG, "both are wrong"),
        (VOID, "void, not counted"),
    ]
    draw.text((MARGIN, 72), "Who is right:", fill=FAINT, font=font(14), anchor="lm")
    start = MARGIN + draw.textlength("Who is right:", font(14)) + 14
    _draw_legend(draw, entries, (round(start), 62), width)
    headings = ("image", "truth", baseline, arm, "who is right")
    for column, heading in enumerate(headings):
        heading = shorten(heading, 60)
        length = draw.textlength(heading, font(15, bold=True))
        letters = font(min(15, int(15 * CELL[1] / length)), bold=True)
        draw.text((_left(column), 118), heading, fill=INK, font=letters, anchor="ls")
    return picture


def _draw_row(row: Row, width: int, labels: Sequence[str]) -> Image.Image:
    """Caption, legend of the classes and five panels."""
    gain = row.other_score - row.baseline_score
    present: set[int] = set(np.unique(np.stack([row.truth, row.baseline, row.other])).tolist())
    colors = voc_palette().tolist()
    entries = [(tuple(colors[i]), labels[i]) for i in sorted(present - {0, IGNORE})]
    size = fit(row.image.shape[:2], CELL)
    panels = (
        row.image,
        draw_labels(row.image, row.truth),
        draw_labels(row.image, row.baseline),
        draw_labels(row.image, row.other),
        draw_differences(row),
    )
    picture = Image.new("RGB", (width, size[0] + 300), "white")  # cut below the panels at last
    draw = ImageDraw.Draw(picture)
    draw.line((MARGIN, 6, width - MARGIN, 6), fill=(214, 215, 219))
    name = shorten(row.id, 40)
    draw.text((MARGIN, 27), name, fill=INK, font=font(17, bold=True), anchor="lm")
    x = MARGIN + draw.textlength(name, font(17, bold=True)) + 16
    scores = f"mIoU {number(row.baseline_score, 1)} → {number(row.other_score, 1)}"
    draw.text((x, 27), scores, fill=INK, font=font(17), anchor="lm")
    x += draw.textlength(scores, font(17)) + 14
    color = OTHER_RIGHT if gain > 0 else BASELINE_RIGHT
    draw.text((x, 27), signed(gain, 1), fill=color, font=font(17, bold=True), anchor="lm")
    x += draw.textlength(signed(gain, 1), font(17, bold=True)) + 28
    bottom = _draw_legend(draw, entries, (round(x), 18), width) + 8
    for column, panel in enumerate(panels):
        picture.paste(Image.fromarray(resize_image(panel, size)), (_left(column), bottom))
    return picture.crop((0, 0, width, bottom + size[0] + 14))


def _left(column: int) -> int:
    return MARGIN + column * (CELL[1] + GAP)


def _draw_legend(
    draw: ImageDraw.ImageDraw,
    entries: Sequence[tuple[tuple[int, ...], str]],
    place: tuple[int, int],
    width: int,
) -> int:
    """Coloured squares with names from `place` (x, y) on, in lines; returns the lower end."""
    x, y = place
    letters = font(14)
    for color, name in entries:
        name = shorten(name, 60)
        length = 24 + draw.textlength(name, letters)
        if x > place[0] and x + length > width - MARGIN:
            x, y = place[0], y + 22
        draw.rounded_rectangle((x, y + 2, x + 15, y + 17), radius=3, fill=color)
        draw.text((x + 22, y + 10), name, fill=FAINT, font=letters, anchor="lm")
        x += length + 16
    return y + 22
