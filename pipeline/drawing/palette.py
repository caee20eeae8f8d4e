"""Colours of classes: PASCAL VOC's palette for label maps, a clearer one for pictures."""

from __future__ import annotations

import functools

import cv2
import numpy as np

from ..files.label_png import voc_palette as voc_palette  # programs take it from here

UNNAMED = (52, 54, 58)  # colour of label 0 in pictures

# Strong colours that are told apart at a glance, for the first classes.
_FIRST = (
    (230, 57, 70), (29, 120, 220), (46, 160, 67), (255, 159, 28), (142, 68, 200), (0, 181, 190),
    (240, 98, 190), (150, 95, 45), (170, 210, 40), (60, 60, 170),
)  # fmt: skip


@functools.cache
def class_colors(count: int = 254) -> np.ndarray:
    """Colours of the first `count` classes in pictures, (count, 3) uint8 RGB.

    After a few chosen ones, each colour is the one of a grid farthest (in CIE Lab) from all before
    it; greys, very dark and very light ones are left out. A class keeps its colour whatever else
    is in the vocabulary. Beyond some 2,800 classes the colours begin again.
    """
    levels = np.linspace(20, 250, 16)
    grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 3)
    lab = _lab(grid)
    vivid = (np.hypot(lab[:, 1], lab[:, 2]) > 28) & (lab[:, 0] > 32) & (lab[:, 0] < 86)
    grid, lab = grid[vivid], lab[vivid]
    colors = [np.asarray(color, np.float64) for color in _FIRST]
    distance = np.full(len(grid), np.inf)
    for color in colors:
        distance = np.minimum(distance, ((lab - _lab(color[None])) ** 2).sum(axis=1))
    while len(colors) < count and distance.any():
        farthest = int(distance.argmax())
        colors.append(grid[farthest])
        distance = np.minimum(distance, ((lab - lab[farthest]) ** 2).sum(axis=1))
    table = np.resize(np.round(colors).astype(np.uint8), (count, 3))
    table.flags.writeable = False  # it is shared
    return table


def label_colors(classes: int = 254) -> np.ndarray:
    """(classes + 1, 3) uint8: the colour of every label; 0 is `UNNAMED`, i + 1 is class i."""
    return np.concatenate([np.array([UNNAMED], np.uint8), class_colors(classes)])


def _lab(rgb: np.ndarray) -> np.ndarray:
    return cv2.cvtColor((rgb[None] / 255).astype(np.float32), cv2.COLOR_RGB2LAB)[0]
