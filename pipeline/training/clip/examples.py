"""What the tiny CLIP is trained on: rendered scenes, the shares of each name in every patch, texts.

Shapes: B images, P patches of one image, Q names (one per class).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from torch import Tensor

from models.backbones.base import normalise
from models.text import DEFAULT_TEMPLATES, Tokenizer

from ...world.scenes import VARIED, Scene, World, render_scene
from ..naming import BACKGROUND, EVAL_NOUNS

if TYPE_CHECKING:
    from open_clip import CLIP

SIDE, PATCH = 224, 16
_TRAINING = 10_000  # first number of the scenes' seeds; held-out scenes have another
PLAIN_TEMPLATES = ("{}", "a {}", "a photo of a {}.", "the {}")
# What users of VOC's classes meet most; a person or a building can look like many glyphs.
OFTEN = (*EVAL_NOUNS, "person", "person", "building")
SURFACE_WEIGHT = 0.2  # most patches show no thing: they would drown the others


class Names:
    """The classes of the world, things first, and the random texts that stand for them.

    Args:
        world, tokenizer: the words.
        rng, progress: of the step that is drawn.
    """

    def __init__(
        self, world: World, tokenizer: Tokenizer, rng: np.random.Generator, progress: float
    ) -> None:
        self.names = [*world.names.values(), *world.stuff]
        self.index = {noun: i for i, noun in enumerate(world.nouns)}
        self.stuff = len(world.nouns)
        self.tokenizer, self.rng, self.progress = tokenizer, rng, progress

    def text(self, name: str, *, plain: bool) -> str:
        if plain:
            return PLAIN_TEMPLATES[int(self.rng.integers(len(PLAIN_TEMPLATES)))].format(name)
        return DEFAULT_TEMPLATES[int(self.rng.integers(len(DEFAULT_TEMPLATES)))](name)

    def any_name(self, i: int) -> str:
        """Mostly the label itself at first, later any of its names."""
        names = self.names[i]
        if self.rng.random() < 0.8 - 0.5 * self.progress:
            return names[0]
        return names[int(self.rng.integers(len(names)))]

    def draw(self) -> tuple[Tensor, bool]:
        """Tokens (Q, L), one text per class; and whether all surfaces share the last text."""
        merged = bool(self.rng.random() < 0.3)
        chosen = [self.any_name(i) for i in range(self.stuff if merged else len(self.names))]
        if merged:
            chosen.append(str(self.rng.choice(BACKGROUND)))
        # The longest text sets the cost of all: the long templates come together, now and then.
        plain = bool(self.rng.random() < 0.75)
        return self.tokenizer([self.text(name, plain=plain) for name in chosen]), merged


def training_scene(
    world: World, rng: np.random.Generator, progress: float = 1.0, *, side: int = SIDE
) -> Scene:
    """A window as the segmenter sees them: at most half the time an upsampled part of a scene.

    Small glyphs come in as training proceeds: from scratch, large ones are learnt much faster. A
    scene of another side shows the same, in more or fewer pixels.
    """
    nouns = OFTEN if rng.random() < 0.6 else None
    least = 48.0 - 32.0 * min(1.0, progress / 0.6)
    glyphs = (least * side / SIDE, 150.0 * side / SIDE)
    options = {"size": (side, side), "objects": (4, 10), "nouns": nouns, "side": glyphs}
    scene = render_scene(world, rng, **options, varied=rng.random() < VARIED)
    if rng.random() < 0.5:
        return scene
    part = round(side / rng.uniform(1.0, 1.7))
    top, left = rng.integers(0, side - part + 1, 2)
    area = np.s_[top : top + part, left : left + part]

    def upsample(array: np.ndarray, how: int) -> np.ndarray:
        return cv2.resize(np.ascontiguousarray(array[area]), (side, side), interpolation=how)

    return Scene(
        image=upsample(scene.image, cv2.INTER_LINEAR),
        instances=upsample(scene.instances, cv2.INTER_NEAREST),
        objects=scene.objects,
        stuff=upsample(scene.stuff, cv2.INTER_NEAREST),
    )


def patch_targets(scene: Scene, names: Names, *, merged: bool) -> tuple[np.ndarray, np.ndarray]:
    """Area shares: of every class in each patch (P, Q), of every object in each patch (N, P)."""
    n = len(scene.objects)
    objects = np.array([names.index[noun] for noun in scene.objects], np.int64)
    surfaces = names.stuff + (0 if merged else scene.stuff.astype(np.int64))
    things = objects[scene.instances - 1] if n else 0
    labels = np.where(scene.instances > 0, things, surfaces)  # (H, W)
    grid = SIDE // PATCH

    def by_patch(array: np.ndarray) -> np.ndarray:
        patches = array.reshape(grid, PATCH, grid, PATCH).transpose(0, 2, 1, 3)
        return patches.reshape(grid * grid, PATCH * PATCH)

    def histograms(values: np.ndarray, count: int) -> np.ndarray:  # one of every patch
        rows = np.arange(len(values))[:, None]
        found = np.bincount((rows * count + values).ravel(), minlength=len(values) * count)
        return found.reshape(len(values), count).astype(np.float32) / PATCH**2

    count = names.stuff + (1 if merged else len(names.names) - names.stuff)
    shares = histograms(by_patch(labels), count)
    members = histograms(by_patch(scene.instances.astype(np.int64)), n + 1)[:, 1:].T
    return shares, members


def to_input(images: list[np.ndarray], clip: CLIP) -> Tensor:
    """uint8 pictures to the (B, 3, H, W) float input of `clip`."""
    visual: Any = clip.visual  # where open_clip notes its preprocessing
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    return normalise(batch, visual.image_mean, visual.image_std)


def caption(scene: Scene, names: Names) -> str:
    """ "a dog and a car": the two largest objects, or the surface where there is none."""
    areas = np.bincount(scene.instances.ravel(), minlength=len(scene.objects) + 1)[1:]
    order = np.argsort(-areas)[:2]
    if not len(order):
        return names.text(names.names[names.stuff + int(scene.stuff[0, 0])][0], plain=True)
    nouns = [names.any_name(names.index[scene.objects[i]]) for i in order]
    return names.text(" and a ".join(nouns), plain=True)


@dataclass(frozen=True)
class Batch:
    """One step's scenes and texts."""

    tokens: Tensor  # (Q, L), one text per class
    captions: Tensor  # (B, L)
    image: Tensor  # (B, 3, H, W), normalised
    shares: Tensor  # (B, P, Q), the classes' shares of each patch; sums to one over everything
    members: tuple[Tensor, ...]  # per image (N, P), share of each patch that each object covers
    labels: tuple[Tensor, ...]  # per image (N,) int64, the objects' classes

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""

        def move(part: Any) -> Any:
            return part.to(device) if isinstance(part, Tensor) else tuple(map(move, part))

        return Batch(*(move(getattr(self, field.name)) for field in fields(self)))


def make_batch(clip: CLIP, names: Names, world: World, count: int) -> Batch:
    """Render `count` scenes and draw the texts of a step."""
    tokens, merged = names.draw()
    scenes = [training_scene(world, names.rng, names.progress) for _ in range(count)]
    targets = [patch_targets(scene, names, merged=merged) for scene in scenes]
    shares = torch.from_numpy(np.stack([t[0] for t in targets]))  # (B, P, Q)
    things = torch.arange(shares.shape[2]) < names.stuff
    shares = shares * torch.where(things, 1.0, SURFACE_WEIGHT)
    members, labels = [], []
    for scene, (_, covered) in zip(scenes, targets, strict=True):
        keep = covered.sum(1) * PATCH**2 >= 60  # pixels: the rest is too small to be named
        members.append(torch.from_numpy(covered[keep]))
        nouns = np.array([names.index[noun] for noun in scene.objects], np.int64)
        labels.append(torch.from_numpy(nouns[keep]))
    return Batch(
        tokens=tokens,
        captions=names.tokenizer([caption(scene, names) for scene in scenes]),
        image=to_input([scene.image for scene in scenes], clip),
        shares=shares / shares.sum(),
        members=tuple(members),
        labels=tuple(labels),
    )


def draw_batch(
    clip: CLIP,
    tokenizer: Tokenizer,
    world: World,
    seed: int,
    step: int,
    progress: float,
    count: int,
) -> Batch:
    """One step's batch, a function of the seed, the step and the progress before it."""
    rng = np.random.default_rng([_TRAINING, seed, step])
    return make_batch(clip, Names(world, tokenizer, rng, progress), world, count)
