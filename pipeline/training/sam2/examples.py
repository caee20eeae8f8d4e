"""Prompted objects of rendered scenes: what SAM 2 is trained on.

Shapes: B images, N objects of all images together, T prompt tokens per object, S side of SAM's
square image, H×W pixels of the rendered scene.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...world.scenes import VARIED, Scene, World, render_scene

# A point is 1 (object) or 0 (not object); a box is the two points 2 (top left), 3 (bottom right).
INSIDE, OUTSIDE, TOP_LEFT, BOTTOM_RIGHT = 1, 0, 2, 3
# Number of prompt tokens, drawn once per step: SAM attends to padding tokens as well, so objects
# prompted with different numbers of points must not share a batch.
TOKEN_COUNTS, TOKEN_WEIGHTS = (1, 2, 3, 4), (0.72, 0.13, 0.09, 0.06)
MASK_PROMPT_PROBABILITY = 0.35


@dataclass(frozen=True)
class Batch:
    """One training step's data.

    Attributes:
        images: (B, 3, S, S) uint8 RGB.
        owner: (N,) int64, the image of each object, ascending.
        points: (N, T, 2) float32 (x, y) pixels of the S×S image; labels: (N, T) int32.
        mask_prompts: (N, 1, S/4, S/4) float32 logits; has_mask: (N,) bool, where they are used.
        coverage: (N, S/2, S/2) float32, the part of each cell that the object covers.
    """

    images: Tensor
    owner: Tensor
    points: Tensor
    labels: Tensor
    mask_prompts: Tensor
    has_mask: Tensor
    coverage: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


def random_scene(world: World, rng: np.random.Generator) -> Scene:
    """A scene of random size: sides 224…384, one in four up to 512 pixels."""
    top = 512 if rng.random() < 0.25 else 384
    size = (int(rng.integers(224, top + 1)), int(rng.integers(224, top + 1)))
    return render_scene(world, rng, size=size, objects=(3, 6), varied=rng.random() < VARIED)


def mirror(scene: Scene) -> Scene:
    """The scene flipped left to right."""
    image, instances, stuff = (
        np.ascontiguousarray(a[:, ::-1]) for a in (scene.image, scene.instances, scene.stuff)
    )
    return Scene(image=image, instances=instances, objects=scene.objects, stuff=stuff)


def square_image(image: np.ndarray, side: int) -> Tensor:
    """(H, W, 3) uint8 → (3, side, side) uint8, squashed with antialiasing as SAM 2 does."""
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None]
    return F.interpolate(tensor, (side, side), mode="bilinear", antialias=True)[0]


def pole(mask: np.ndarray) -> tuple[int, int]:
    """The pixel (x, y) farthest from the outline of a non-empty (H, W) bool mask."""
    x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
    # The border counts as outside, also where the image ends.
    crop = np.pad(mask[y : y + h, x : x + w].astype(np.uint8), 1)
    distance = cv2.distanceTransform(crop, cv2.DIST_L2, 5)
    row, column = np.unravel_index(int(distance.argmax()), distance.shape)
    return x + int(column) - 1, y + int(row) - 1


def random_pixel(mask: np.ndarray, rng: np.random.Generator) -> tuple[int, int]:
    """Any pixel (x, y) of a non-empty (H, W) bool mask."""
    inside = np.flatnonzero(mask)
    row, column = divmod(int(inside[rng.integers(len(inside))]), mask.shape[1])
    return column, row


def jittered_box(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(2, 2) float32 corners (x, y) around a mask, each moved by up to a tenth of the box."""
    x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
    corners = np.array([[x, y], [x + w - 1, y + h - 1]], np.float32)
    corners += rng.uniform(-0.1, 0.1, (2, 2)).astype(np.float32) * (w, h)
    return np.clip(corners, 0, (mask.shape[1] - 1, mask.shape[0] - 1)).astype(np.float32)


def point_prompt(
    instances: np.ndarray, index: int, tokens: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Points and labels of one object: (tokens, 2) float32 pixels of the scene, (tokens,) int32.

    One token is a point; more are a point with points elsewhere, or a box (with points if there
    are more than two tokens).
    """
    mask = instances == index
    points: list[tuple[float, float]] = []
    labels: list[int] = []
    if tokens > 1 and rng.random() < 0.4:
        points += [tuple(corner) for corner in jittered_box(mask, rng).tolist()]
        labels += [TOP_LEFT, BOTTOM_RIGHT]
    if len(points) < tokens:
        points.append(pole(mask) if rng.random() < 0.6 else random_pixel(mask, rng))
        labels.append(INSIDE)
    while len(points) < tokens:
        others = (instances > 0) & ~mask
        elsewhere = others if others.any() and rng.random() < 0.7 else ~mask
        points.append(random_pixel(elsewhere, rng))
        labels.append(OUTSIDE)
    return np.asarray(points, np.float32), np.asarray(labels, np.int32)


def coarse_mask(
    coverage: np.ndarray, others: np.ndarray, size: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """A mask prompt such as a class map gives: blurred to patches, noisy, leaking to neighbours.

    Args:
        coverage: (L, L) float32, the part of each cell that the object covers; others: the same
            for all other objects together.
        size: (H, W) of the scene, which decides how many patches it has.

    Returns:
        (L, L) float32 logits of random steepness.
    """
    side = coverage.shape[0]
    region = coverage
    if rng.random() < 0.3:  # a neighbour of the same class
        region = np.maximum(region, others * np.float32(rng.uniform(0.3, 1.0)))
    if rng.random() < 0.75:
        patch = rng.uniform(6, 24)
        grid = [max(2, round(n / patch)) for n in (size[1], size[0])]
        region = cv2.resize(region, grid, interpolation=cv2.INTER_AREA)
        region = region / max(float(region.max()), 1e-3)
    region = region + rng.normal(0, rng.uniform(0, 0.25), region.shape).astype(np.float32)
    region = cv2.resize(region.astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
    logits = (region - rng.uniform(0.25, 0.6)) * rng.uniform(4, 24)
    return np.clip(logits, -16, 16).astype(np.float32)


def make_batch(
    scenes: list[Scene], rng: np.random.Generator, *, side: int, most_objects: int
) -> Batch:
    """Prompts for up to `most_objects` objects, chosen at random, of each scene, which has some.

    `side` is S, that of SAM's square image.
    """
    tokens = int(rng.choice(TOKEN_COUNTS, p=TOKEN_WEIGHTS))
    half, low = (side // 2, side // 2), (side // 4, side // 4)
    owner, points, labels, masks, has_mask, coverages = [], [], [], [], [], []
    for image_index, scene in enumerate(scenes):
        height, width = scene.instances.shape
        indices = rng.permutation(len(scene.objects))[:most_objects] + 1
        for index in indices.tolist():
            owner.append(image_index)
            xy, label = point_prompt(scene.instances, index, tokens, rng)
            # Middles of pixels; SAM's encoder adds the last half itself.
            points.append((xy + 0.5) * np.array([side / width, side / height], np.float32) - 0.5)
            labels.append(label)
            own = (scene.instances == index).astype(np.float32)
            coverages.append(cv2.resize(own, half, interpolation=cv2.INTER_AREA))
            has_mask.append(rng.random() < MASK_PROMPT_PROBABILITY)
            if has_mask[-1]:
                other = ((scene.instances > 0) & (scene.instances != index)).astype(np.float32)
                other = cv2.resize(other, low, interpolation=cv2.INTER_AREA)
                own = cv2.resize(coverages[-1], low, interpolation=cv2.INTER_AREA)
                masks.append(coarse_mask(own, other, (height, width), rng))
            else:
                masks.append(np.zeros(low, np.float32))
    return Batch(
        images=torch.stack([square_image(scene.image, side) for scene in scenes]),
        owner=torch.tensor(owner),
        points=torch.from_numpy(np.stack(points)),
        labels=torch.from_numpy(np.stack(labels)),
        mask_prompts=torch.from_numpy(np.stack(masks))[:, None],
        has_mask=torch.tensor(has_mask),
        coverage=torch.from_numpy(np.stack(coverages)),
    )
