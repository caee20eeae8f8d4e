"""Where training images and their masks come from; this file: the interface, and rendered scenes.

Everything random is drawn from a generator that the caller seeds per step, so that a step's images
are a function of the seed and the step alone.

Shapes: H×W pixels of one image, M masks. A mask map holds 0…M-1 where a mask is, -1 where none is.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import cv2
import numpy as np

from ...world.scenes import Scene, World
from ..clip.examples import training_scene
from ..naming import held_out_scene

NO_MASK = -1


class Sample(NamedTuple):
    """A square training image."""

    image: np.ndarray  # (H, W, 3) uint8
    masks: np.ndarray  # (H, W) int64, a mask map


class Source(Protocol):
    """Training images, and others that training never sees."""

    name: str  # what a resumed run must have again

    def draw(self, rng: np.random.Generator, side: int) -> Sample:
        """A random view, `side` pixels wide and high."""
        ...

    def held_out(self, count: int, side: int) -> list[Sample]:
        """At most `count` samples, always the same, which `draw` never gives."""
        ...


class RenderedScenes:
    """Scenes of the rendered world, with the masks they were made from."""

    name = "rendered"

    def __init__(self, world: World) -> None:
        self.world = world

    def draw(self, rng: np.random.Generator, side: int) -> Sample:
        scene = training_scene(self.world, rng, side=side)
        return Sample(scene.image, scene_masks(scene))

    def held_out(self, count: int, side: int) -> list[Sample]:
        scenes = (held_out_scene(self.world, i, (side, side)) for i in range(count))
        return [Sample(scene.image, scene_masks(scene)) for scene in scenes]


def scene_masks(scene: Scene) -> np.ndarray:
    """(H, W) mask map: one mask per object and per visible surface."""
    surfaces = -1 - scene.stuff.astype(np.int64)
    return compact(np.where(scene.instances > 0, scene.instances.astype(np.int64), surfaces))


def compact(labels: np.ndarray, none: int | None = None) -> np.ndarray:
    """A mask map of any labels: they are numbered 0…M-1 in order, `none` becomes -1."""
    values, masks = np.unique(labels, return_inverse=True)
    masks = masks.reshape(labels.shape).astype(np.int64)
    if none is not None and none in values:
        at = int(np.searchsorted(values, none))
        masks = np.where(masks == at, NO_MASK, masks - (masks > at))
    return masks


def random_view(
    image: np.ndarray, masks: np.ndarray, rng: np.random.Generator, side: int
) -> Sample:
    """A random square of at least 60 % of the shorter side, mirrored half the time, resized."""
    part = max(1, round(min(masks.shape) * rng.uniform(0.6, 1.0)))
    top, left = (int(rng.integers(0, n - part + 1)) for n in masks.shape)
    return _view(image, masks, (top, left, part), side, flip=rng.random() < 0.5)


def central_view(image: np.ndarray, masks: np.ndarray, side: int) -> Sample:
    """The largest square in the middle, resized."""
    part = min(masks.shape)
    top, left = ((n - part) // 2 for n in masks.shape)
    return _view(image, masks, (top, left, part), side, flip=False)


def _view(
    image: np.ndarray, masks: np.ndarray, square: tuple[int, int, int], side: int, *, flip: bool
) -> Sample:
    top, left, part = square
    area = np.s_[top : top + part, left : left + part]
    image, masks = resize(image[area], masks[area], side)
    if flip:
        image, masks = np.ascontiguousarray(image[:, ::-1]), np.ascontiguousarray(masks[:, ::-1])
    return Sample(image, masks)


def resize(image: np.ndarray, masks: np.ndarray, side: int) -> Sample:
    """A square image (n, n, 3) and its mask map, larger or smaller; masks too small go."""
    how = cv2.INTER_AREA if len(image) > side else cv2.INTER_CUBIC
    image = cv2.resize(np.ascontiguousarray(image), (side, side), interpolation=how)
    labels = np.ascontiguousarray(masks.astype(np.int16))  # OpenCV resizes no int64
    labels = cv2.resize(labels, (side, side), interpolation=cv2.INTER_NEAREST_EXACT)
    return Sample(image, compact(labels, NO_MASK))
