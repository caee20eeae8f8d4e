"""What makes a rendered scene less tidy: recoloured and textured glyphs, shadows, occluders.

Shapes: h×w pixels of a glyph, H×W pixels of the scene.
"""

from __future__ import annotations

import cv2
import numpy as np

from .surfaces import LAYOUTS, paint_surface

SURFACES = tuple(dict.fromkeys(name for layout in LAYOUTS for name in layout))
LEAST_LEFT = 0.5  # an occluder leaves this share of every object in view, and 30 pixels
LEAST_PIXELS = 30


def recolour(sprite: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turn the hues of a glyph, change how vivid it is, lay a faint texture over it.

    (h, w, 4) float32 RGBA in 0…255 -> the same, with the same opacity.
    """
    out = sprite.copy()
    if rng.random() < 0.6:
        hsv = cv2.cvtColor(np.ascontiguousarray(out[..., :3]) / 255, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0] + rng.normal(0, 40)) % 360  # degrees
        hsv[..., 1] = np.clip(hsv[..., 1] * rng.uniform(0.5, 1.3), 0, 1)
        out[..., :3] = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255
    if rng.random() < 0.5:
        surface = paint_surface(str(rng.choice(SURFACES)), rng, sprite.shape[:2])
        grain = surface - surface.mean((0, 1))
        out[..., :3] += rng.uniform(0.1, 0.5) * grain
    out[..., :3] = np.clip(out[..., :3], 0, 255)
    return out


def cast_shadow(image: np.ndarray, opacity: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Darken what lies beside an object that is about to be pasted.

    The picture is (H, W, 3) float32, the object's opacity (H, W) in 0…1.
    """
    rows = np.nonzero(opacity >= 0.5)[0]
    if not len(rows):
        return image
    foot, height = float(rows.max()), float(np.ptp(rows) + 1)
    # It starts at the foot, falls to one side and is flatter than the object.
    lean, flat = rng.uniform(-0.8, 0.8), rng.uniform(0.15, 0.6)
    shear = np.array([[1, -lean, lean * foot], [0, flat, (1 - flat) * foot]], np.float32)
    size = (image.shape[1], image.shape[0])
    shadow = cv2.warpAffine(np.ascontiguousarray(opacity), shear, size, flags=cv2.INTER_LINEAR)
    shadow = cv2.GaussianBlur(shadow, (0, 0), max(0.6, 0.04 * height))
    return image * (1 - np.float32(rng.uniform(0.2, 0.6)) * shadow[..., None])


def add_occluders(
    image: np.ndarray,
    instances: np.ndarray,
    stuff: np.ndarray,
    surfaces: dict[str, int],
    rng: np.random.Generator,
) -> np.ndarray:
    """Put one or two posts, rails or panels of some surface in front of the objects.

    Args:
        image: (H, W, 3) float32.
        instances: (H, W) int16; where an occluder stands they become 0, in place.
        stuff: (H, W) uint8; where an occluder stands it becomes that surface, in place.
        surfaces: name of a surface → its index in `stuff`.

    Returns:
        The picture. An occluder that would hide most of an object is left out.
    """
    height, width = instances.shape
    before = np.bincount(instances.ravel(), minlength=instances.max() + 1)
    for _ in range(int(rng.integers(1, 3))):
        centre = (rng.uniform(0, width), rng.uniform(0, height))
        thick = rng.uniform(0.02, 0.1) * max(height, width)
        long = rng.uniform(0.2, 2.0) * max(height, width)
        angle = rng.choice([0.0, 90.0]) + rng.normal(0, 8)
        corners = cv2.boxPoints((centre, (long, thick), float(angle)))
        where = np.zeros((height, width), np.uint8)
        cv2.fillConvexPoly(where, np.round(corners).astype(np.int32), 1)
        where = where.astype(bool)
        name = str(rng.choice(SURFACES))
        after = np.bincount(instances[~where], minlength=len(before))
        if (after < np.maximum(LEAST_LEFT * before, np.minimum(before, LEAST_PIXELS)))[1:].any():
            continue
        paint = paint_surface(name, rng, (height, width)) * rng.uniform(0.6, 1.1)
        image = np.where(where[..., None], paint.astype(np.float32), image)
        instances[where] = 0
        stuff[where] = surfaces[name]
    return image
