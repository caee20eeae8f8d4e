"""Surfaces of the rendered world: one painter per name in `data/stuff.txt`.

A painter takes (rng, (H, W)) and returns (H, W, 3) float32 RGB in 0…255.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import cv2
import numpy as np

Size = tuple[int, int]

# Surfaces seen above a horizon, and those below it. `pattern` can be either.
LAYOUTS = (
    ("sky", "wall", "curtain", "rail", "shelf", "pattern"),
    ("grass", "road", "sea", "sand", "wood", "snow", "ground", "tiles", "pattern"),
)


def paint_surface(name: str, rng: np.random.Generator, size: Size) -> np.ndarray:
    """Paint the surface `name` (see `LAYOUTS`), (H, W, 3) float32 RGB in 0…255."""
    return np.clip(_PAINTERS[name](rng, size), 0, 255).astype(np.float32)


def _hsv(rng: np.random.Generator, hue, saturation, value) -> np.ndarray:
    """A colour drawn from ranges of hue, saturation and value in 0…1; (3,) float32, 0…255."""
    hsv = rng.uniform(*hue) % 1.0, rng.uniform(*saturation), rng.uniform(*value)
    return np.array(colorsys.hsv_to_rgb(*hsv), np.float32) * 255


def _any_colour(rng: np.random.Generator) -> np.ndarray:
    return _hsv(rng, (0, 1), (0, 0.8), (0.2, 1))


def _noise(rng: np.random.Generator, size: Size, cell: tuple[float, float]) -> np.ndarray:
    """Smooth noise of about unit deviation whose grain is `cell` = (height, width) pixels."""
    grid = [max(2, round(n / c)) for n, c in zip(size, cell, strict=True)]
    coarse = rng.standard_normal(grid, dtype=np.float32)
    return cv2.resize(coarse, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)[..., None]


def _rows(size: Size) -> np.ndarray:
    return np.arange(size[0], dtype=np.float32)[:, None, None]


def _columns(size: Size) -> np.ndarray:
    return np.arange(size[1], dtype=np.float32)[None, :, None]


def _flat(size: Size, colour: np.ndarray) -> np.ndarray:
    return np.broadcast_to(colour, (*size, 3)).astype(np.float32)


def _sky(rng, size):
    top = _hsv(rng, (0.54, 0.62), (0.3, 0.8), (0.6, 1))
    bottom = top + (255 - top) * np.float32(rng.uniform(0, 0.8))
    ramp = _rows(size) / max(size[0] - 1, 1)
    return top + (bottom - top) * ramp + 12 * rng.uniform(0, 1) * _noise(rng, size, (40, 80))


def _grass(rng, size):
    base = _hsv(rng, (0.22, 0.36), (0.4, 0.9), (0.3, 0.75))
    blades = _noise(rng, size, (rng.uniform(3, 8), 1.5))
    return base + rng.uniform(8, 22) * blades + 10 * _noise(rng, size, (30, 30))


def _road(rng, size):
    base = _hsv(rng, (0, 1), (0, 0.08), (0.25, 0.6))
    image = base + rng.uniform(4, 14) * _noise(rng, size, (1.5, 1.5))
    if rng.random() < 0.5:  # a dashed line
        row, thick = rng.uniform(0.2, 0.8) * size[0], rng.uniform(2, 7)
        dash = rng.uniform(20, 60)
        line = (np.abs(_rows(size) - row) < thick / 2) & (_columns(size) % dash < dash / 2)
        image = np.where(line, _hsv(rng, (0.1, 0.16), (0, 0.5), (0.8, 1)), image)
    return image


def _sea(rng, size):
    base = _hsv(rng, (0.47, 0.63), (0.4, 0.9), (0.3, 0.8))
    wave = np.sin(_rows(size) / rng.uniform(2, 6) + 2 * _noise(rng, size, (20, 40)))
    return base + rng.uniform(6, 20) * wave + 8 * _noise(rng, size, (4, 20))


def _sand(rng, size):
    base = _hsv(rng, (0.09, 0.14), (0.2, 0.5), (0.7, 0.95))
    grains = rng.uniform(4, 12) * _noise(rng, size, (1.5, 1.5))
    return base + grains + 8 * _noise(rng, size, (25, 60))


def _wall(rng, size):
    if rng.random() < 0.4:  # plaster
        return _hsv(rng, (0, 1), (0, 0.35), (0.5, 1)) + 3 * _noise(rng, size, (8, 8))
    high, wide = rng.uniform(7, 16), rng.uniform(18, 40)
    brick = _hsv(rng, (-0.03, 0.1), (0.2, 0.75), (0.4, 0.85))
    row = np.floor(_rows(size) / high)
    mortar = (_rows(size) % high < 1.5) | ((_columns(size) + row % 2 * wide / 2) % wide < 1.5)
    image = brick + 10 * _noise(rng, size, (high, wide))
    return np.where(mortar, _hsv(rng, (0, 1), (0, 0.1), (0.6, 0.9)), image)


def _wood(rng, size):
    base = _hsv(rng, (0.05, 0.11), (0.35, 0.75), (0.35, 0.8))
    grain = _noise(rng, size, (1.5, rng.uniform(30, 80)))
    plank = rng.uniform(14, 40)
    gap = _rows(size) % plank < 1.3
    return np.where(gap, base * 0.55, base + rng.uniform(6, 16) * grain)


def _curtain(rng, size):
    base = _any_colour(rng)
    folds = np.sin(_columns(size) / rng.uniform(3, 9) + _noise(rng, size, (60, 20)))
    return base + rng.uniform(12, 32) * folds


def _snow(rng, size):
    return _hsv(rng, (0.5, 0.65), (0, 0.1), (0.88, 1)) + 4 * _noise(rng, size, (6, 12))


def _ground(rng, size):
    base = _hsv(rng, (0.04, 0.1), (0.3, 0.65), (0.25, 0.55))
    return base + 14 * _noise(rng, size, (12, 18)) + 8 * _noise(rng, size, (1.5, 1.5))


def _tiles(rng, size):
    side = rng.uniform(12, 40)
    first, second = _hsv(rng, (0, 1), (0, 0.4), (0.5, 1)), _hsv(rng, (0, 1), (0, 0.4), (0.3, 1))
    check = (np.floor(_rows(size) / side) + np.floor(_columns(size) / side)) % 2 == 0
    joint = (_rows(size) % side < 1.2) | (_columns(size) % side < 1.2)
    image = np.where(check, first, first if rng.random() < 0.5 else second)
    return np.where(joint, image * 0.75, image)


def _rail(rng, size):
    behind = _PAINTERS[str(rng.choice(["sky", "grass", "pattern"]))](rng, size)
    step, bar = rng.uniform(14, 34), rng.uniform(3, 7)
    posts = _columns(size) % step < bar
    beams = np.abs(_rows(size) % (size[0] / 2 + 1) - size[0] / 4) < bar / 2
    return np.where(posts | beams, _any_colour(rng) * 0.8, behind)


def _shelf(rng, size):
    base = _hsv(rng, (0.04, 0.12), (0.05, 0.6), (0.3, 0.9))
    step = rng.uniform(16, 48)
    shade = 1 - 0.45 * (_rows(size) % step) / step
    edge = _rows(size) % step < 3
    shelf = np.where(edge, np.minimum(base * 1.25, 255), base * shade)
    return shelf + 3 * _noise(rng, size, (2, 20))


def _pattern(rng, size):
    first, second = _any_colour(rng), _any_colour(rng)
    kind = int(rng.integers(6))
    if kind == 0:
        return _flat(size, first)
    if kind == 1:  # gradient in any direction
        angle = rng.uniform(0, 2 * np.pi)
        ramp = np.cos(angle) * _rows(size) / size[0] + np.sin(angle) * _columns(size) / size[1]
        return first + (second - first) * (0.5 + 0.5 * ramp)
    if kind == 2:  # stripes in any direction
        angle, period = rng.uniform(0, np.pi), rng.uniform(6, 40)
        along = np.cos(angle) * _rows(size) + np.sin(angle) * _columns(size)
        return np.where(along % period < period / 2, first, second)
    if kind == 3:  # checks
        side = rng.uniform(6, 30)
        odd = (np.floor(_rows(size) / side) + np.floor(_columns(size) / side)) % 2 == 0
        return np.where(odd, first, second)
    if kind == 4:  # coloured pixel noise
        grain = rng.standard_normal((*size, 3), dtype=np.float32)
        return first + rng.uniform(10, 60) * grain
    cell = rng.uniform(6, 50)
    blobs = np.concatenate([_noise(rng, size, (cell, cell)) for _ in range(3)], axis=-1)
    return first + rng.uniform(15, 60) * blobs


_PAINTERS: dict[str, Callable[[np.random.Generator, Size], np.ndarray]] = {
    painter.__name__[1:]: painter
    for painter in (
        _sky, _grass, _road, _sea, _sand, _wall, _wood, _curtain, _snow, _ground, _tiles, _rail,
        _shelf, _pattern,
    )
}  # fmt: skip
