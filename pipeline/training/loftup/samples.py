"""Where training images and their masks come from; this file: the interface, and rendered scenes.

Everything random is drawn from a generator that the caller seeds per step, so that a step's images
are a function of the seed and the step alone.

Shapes: H×W pixels of one image, M masks, R regions, see `masks`.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import cv2
import numpy as np

from ...world.scenes import Scene, World
from ..clip.examples import training_scene
from ..naming import held_out_scene
from .masks import compact, shown


class Sample(NamedTuple):
    """An image and its masks; training images are square."""

    image: np.ndarray  # (H, W, 3) uint8
    masks: np.ndarray  # (H, W) int64, a map of regions
    members: np.ndarray | None = None  # (M, R) bool; None: every region is a mask


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


def random_view(sample: Sample, rng: np.random.Generator, side: int) -> Sample:
    """A random square of at least 60 % of the shorter side, mirrored half the time, resized.

    It is cut no smaller than `side`, where the image is large enough: enlarging shows nothing new.
    """
    least = min(sample.masks.shape)
    part = max(1, round(least * rng.uniform(0.6, 1.0)), min(side, least))
    top, left = (int(rng.integers(0, n - part + 1)) for n in sample.masks.shape)
    return _view(sample, (top, left, part), side, flip=rng.random() < 0.5)


def central_view(sample: Sample, side: int) -> Sample:
    """The largest square in the middle, resized."""
    part = min(sample.masks.shape)
    top, left = ((n - part) // 2 for n in sample.masks.shape)
    return _view(sample, (top, left, part), side, flip=False)


def cut(sample: Sample, square: tuple[int, int, int]) -> Sample:
    """A square (top, left, side) of an image, pixels; numbers of regions and masks stay."""
    top, left, part = square
    area = np.s_[top : top + part, left : left + part]
    return Sample(sample.image[area], sample.masks[area], sample.members)


def _view(sample: Sample, square: tuple[int, int, int], side: int, *, flip: bool) -> Sample:
    image, masks, members = resize(cut(sample, square), side)
    if flip:
        image, masks = np.ascontiguousarray(image[:, ::-1]), np.ascontiguousarray(masks[:, ::-1])
    return Sample(image, masks, members)


def resize(sample: Sample, side: int) -> Sample:
    """A square image larger or smaller; masks too small go."""
    how = cv2.INTER_AREA if len(sample.image) > side else cv2.INTER_CUBIC
    image = cv2.resize(np.ascontiguousarray(sample.image), (side, side), interpolation=how)
    labels = np.ascontiguousarray(sample.masks.astype(np.int16))  # OpenCV resizes no int64
    labels = cv2.resize(labels, (side, side), interpolation=cv2.INTER_NEAREST_EXACT)
    return Sample(image, *shown(labels, sample.members))
