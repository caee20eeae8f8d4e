"""The rendered world: scenes with exact masks, made of Noto Color Emoji glyphs on textured ground.

The `tiny` models are trained and measured on these scenes. Everything is drawn from a
`numpy.random.Generator` that the caller owns, so a seed names a scene for good.

Shapes: H×W image pixels. Masks are exact: a pixel belongs to the glyph whose opacity there is
at least one half, and to the glyph pasted last where several overlap.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from .effects import add_occluders, cast_shadow, recolour
from .surfaces import LAYOUTS, paint_surface

DATA = Path(__file__).parent / "data"

# PASCAL VOC's classes that the world has (no glyph shows a dining table), by VOC's own names.
VOC_NOUNS = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip

VARIED = 0.4  # share of training scenes with shadows, occluders and recoloured things


@dataclass(frozen=True)
class World:
    """Sprites and words.

    Attributes:
        names: noun → every name it goes by, the noun itself first, plurals included.
        sprites: noun → its glyphs, each (h, w, 4) uint8 RGBA, cropped to the opaque part.
        stuff: names of the surfaces behind the things; `stuff[i]` is tuple of names.
    """

    names: dict[str, tuple[str, ...]]
    sprites: dict[str, tuple[np.ndarray, ...]]
    stuff: tuple[tuple[str, ...], ...]

    @property
    def nouns(self) -> tuple[str, ...]:
        return tuple(self.names)


@dataclass(frozen=True)
class Scene:
    """One rendered picture.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        instances: (H, W) int16; 0 is background, i is `objects[i - 1]` where it is visible.
        objects: noun of each object, in pasting order; every one has visible pixels.
        stuff: (H, W) uint8 index into `World.stuff`, also behind the objects.
    """

    image: np.ndarray
    instances: np.ndarray
    objects: tuple[str, ...]
    stuff: np.ndarray

    def label_map(self, class_of: dict[str, int]) -> np.ndarray:
        """(H, W) int64 labels: `class_of[noun]`, and 0 for background and nouns not listed."""
        table = np.zeros(len(self.objects) + 1, np.int64)
        table[1:] = [class_of.get(noun, 0) for noun in self.objects]
        return table[self.instances]


def plural(word: str) -> str:
    """Regular English plural of a noun phrase's last word."""
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return word + "es"
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + "s"


def read_names(path: Path) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Read a word list: lines of `name, name, … | glyph glyph …`; `#` starts a comment."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            words, _, glyphs = line.partition("|")
            rows.append((tuple(w.strip() for w in words.split(",")), tuple(glyphs.split())))
    return rows


def _all_names(names: tuple[str, ...]) -> tuple[str, ...]:
    # The label always gets a plural; a phrase such as "person in shirt" never does.
    plurals = [plural(w) for w in names if " in " not in w and not w.endswith("s")]
    return tuple(dict.fromkeys([*names, *plurals]))


@functools.cache
def load_world() -> World:
    """Read the sprite sheet and the word lists that are part of this package."""
    sheet = np.asarray(Image.open(DATA / "sprites.png").convert("RGBA"))
    boxes = json.loads((DATA / "sprites.json").read_text(encoding="utf-8"))
    names, sprites = {}, {}
    for words, glyphs in read_names(DATA / "nouns.txt"):
        names[words[0]] = _all_names(words)
        sprites[words[0]] = tuple(
            np.ascontiguousarray(sheet[top : top + height, left : left + width])
            for top, left, height, width in (boxes[glyph] for glyph in glyphs)
        )
    stuff = tuple(words for words, _ in read_names(DATA / "stuff.txt"))
    return World(names=names, sprites=sprites, stuff=stuff)


def render_background(
    world: World, rng: np.random.Generator, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """One surface, or one above another behind a horizon.

    Returns:
        The picture, (H, W, 3) float32 in 0…255, and its (H, W) uint8 index into `World.stuff`.
    """
    height, width = size
    index = {words[0]: i for i, words in enumerate(world.stuff)}
    upper, lower = LAYOUTS
    if rng.random() < 0.4:
        name = str(rng.choice([*upper, *lower]))
        return paint_surface(name, rng, size), np.full(size, index[name], np.uint8)
    horizon = int(height * rng.uniform(0.25, 0.75))
    horizon = min(max(horizon, 1), height - 1) if height > 1 else height
    above, below = str(rng.choice(upper)), str(rng.choice(lower))
    image = np.empty((height, width, 3), np.float32)
    stuff = np.empty(size, np.uint8)
    image[:horizon] = paint_surface(above, rng, (horizon, width))
    stuff[:horizon] = index[above]
    if horizon < height:
        image[horizon:] = paint_surface(below, rng, (height - horizon, width))
        stuff[horizon:] = index[below]
    return image, stuff


def place_sprite(
    sprite: np.ndarray,
    size: tuple[int, int],
    *,
    centre: tuple[float, float],
    side: float,
    angle: float = 0.0,
    flip: bool = False,
) -> np.ndarray:
    """Scale, turn and move a glyph onto an empty canvas.

    Args:
        sprite: (h, w, 4) RGBA in 0…255.
        size: (H, W) of the canvas.
        centre: (x, y) of the glyph's middle on the canvas, pixels.
        side: its longer side there, pixels.
        angle: degrees, counter-clockwise.
        flip: mirror it left to right.

    Returns:
        (H, W, 4) float32: colour times opacity in 0…255, opacity in 0…1.
    """
    if flip:
        sprite = sprite[:, ::-1]
    scale = side / max(sprite.shape[:2])
    layer = sprite.astype(np.float32)
    layer[..., 3] /= 255
    layer[..., :3] *= layer[..., 3:]
    if scale < 0.75:  # the warp samples 2×2 pixels: shrink first, or thin parts alias away
        shrunk = [max(1, round(n * scale)) for n in sprite.shape[1::-1]]
        layer = cv2.resize(layer, shrunk, interpolation=cv2.INTER_AREA)
        scale = 1.0
    h, w = layer.shape[:2]
    matrix = cv2.getRotationMatrix2D(((w - 1) / 2, (h - 1) / 2), angle, scale)
    matrix[:, 2] += np.asarray(centre) - ((w - 1) / 2, (h - 1) / 2)
    return cv2.warpAffine(layer, matrix, (size[1], size[0]), flags=cv2.INTER_LINEAR, borderValue=0)


def render_scene(
    world: World,
    rng: np.random.Generator,
    *,
    size: tuple[int, int],
    objects: tuple[int, int] = (2, 6),
    nouns: Sequence[str] | None = None,
    side: tuple[float, float] = (20.0, 140.0),
    varied: bool = False,
) -> Scene:
    """Render one scene.

    Args:
        world: sprites and words.
        rng: source of every choice made here.
        size: (H, W) pixels.
        objects: least and greatest number of glyphs pasted (both included). One that finds no
            room without hiding another is left out.
        nouns: the nouns to draw from, evenly; None draws from all.
        side: least and greatest longer side of a glyph, pixels, log-uniform.
        varied: recolour and texture glyphs, cast shadows and put surfaces in front. The plain
            scene of the same seed has other objects elsewhere.
    """
    height, width = size
    image, stuff = render_background(world, rng, size)
    instances = np.zeros(size, np.int16)
    pool = world.nouns if nouns is None else tuple(nouns)
    placed: list[str] = []
    areas: list[int] = []
    for _ in range(int(rng.integers(objects[0], objects[1] + 1))):
        noun = pool[int(rng.integers(len(pool)))]
        glyphs = world.sprites[noun]
        sprite = _relight(glyphs[int(rng.integers(len(glyphs)))], rng)
        if varied:
            sprite = recolour(sprite, rng)
        for _attempt in range(4):
            length = float(np.exp(rng.uniform(np.log(side[0]), np.log(side[1]))))
            centre = (
                rng.uniform(min(length / 3, width / 2), max(width - length / 3, width / 2)),
                rng.uniform(min(length / 3, height / 2), max(height - length / 3, height / 2)),
            )
            angle = float(rng.uniform(-20, 20)) if rng.random() < 0.7 else 0.0
            flip = bool(rng.random() < 0.5)
            pasted = place_sprite(sprite, size, centre=centre, side=length, angle=angle, flip=flip)
            covers = pasted[..., 3] >= 0.5
            hidden = np.bincount(instances[covers], minlength=len(placed) + 1)[1:]
            if covers.sum() >= 30 and all(
                left - cut >= max(0.4 * left, 30)
                for left, cut in zip(areas, hidden.tolist(), strict=True)
            ):
                break
        else:
            continue
        if varied and rng.random() < 0.5:
            image = cast_shadow(image, pasted[..., 3], rng)
        image = image * (1 - pasted[..., 3:]) + pasted[..., :3]
        instances[covers] = len(placed) + 1
        placed.append(noun)
        areas = [left - cut for left, cut in zip(areas, hidden.tolist(), strict=True)]
        areas.append(int(covers.sum()))
    if varied and rng.random() < 0.5:
        surfaces = {words[0]: i for i, words in enumerate(world.stuff)}
        image = add_occluders(image, instances, stuff, surfaces, rng)
    return Scene(image=_expose(image, rng), instances=instances, objects=tuple(placed), stuff=stuff)


def _relight(sprite: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Brightness, contrast and a slight tint of one RGBA glyph, (h, w, 4) float32."""
    out = sprite.astype(np.float32)
    gain = rng.uniform(0.7, 1.2) * rng.uniform(0.93, 1.07, 3)
    out[..., :3] = np.clip(out[..., :3] * gain + rng.uniform(-20, 20), 0, 255)
    return out


def _expose(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Light and sensor of the whole picture: gain, colour cast, slight blur, noise; to uint8."""
    image = image * (rng.uniform(0.8, 1.15) * rng.uniform(0.95, 1.05, 3)).astype(np.float32)
    if rng.random() < 0.25:
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.4, 1.0)))
    if rng.random() < 0.5:
        sigma = np.float32(rng.uniform(1, 6))
        image = image + sigma * rng.standard_normal(image.shape, dtype=np.float32)
    return np.clip(image + 0.5, 0, 255).astype(np.uint8)
