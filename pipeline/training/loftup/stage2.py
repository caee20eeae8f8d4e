"""Stage 2: a teacher that sees enlarged crops tells what lies between the patches.

Shapes: n windows, C channels, s side of a window, S side of an image, P pixels of an affinity
matrix.
"""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
from torch import Tensor

from models.device import autocast

from ..weights import blend
from .losses import affinity_loss
from .masks import refine
from .samples import Sample, cut, resize
from .stage import Batch, Stage, mean_cosine
from .students import Student
from .targets import Example, reduction, to_tensor

AFFINITY_WEIGHT = 20.0  # as in the authors' scripts: squared differences of cosines are small


class SecondStage(Stage):
    """Self-distillation, without labels.

    The teacher starts as the student and follows it slowly. It upsamples crops of the enlarged
    image; its output is drawn to the masks and shrunk to the crop's place in the student's output.
    Sides of places are whole patches, so the zoom t takes the values S / (k · patch) within the
    range. Places begin every `corner` pixels of the enlarged image, rounded to the student's
    pixels; both are shown exactly the same place.
    """

    def prepare(self) -> None:
        config, backbone = self.config, self.backbone
        low, high = config.enlarge
        grid = config.side // backbone.patch
        self.place_sides = [n for n in range(1, grid + 1) if low <= grid / n <= high]  # patches
        if not self.place_sides:
            raise ValueError(
                f"no crop of whole patches enlarges {low:g} to {high:g} times at side "
                f"{config.side}: {backbone.name} has {grid} patches a side; widen --enlarge"
            )
        self.zoom = math.ceil(grid / self.place_sides[0])
        self.weights = {"affinity": AFFINITY_WEIGHT, "anchor": config.anchor, "tv": config.tv}
        # Not a part of the module: it has no gradients, and its state is saved on its own.
        self._teacher = [copy.deepcopy(self.student).eval().requires_grad_(False)]

    @property
    def teacher(self) -> Student:
        return self._teacher[0]

    def examples(self, samples: list[Sample]) -> list[Example]:
        side = self.config.side
        return super().examples([resize(sample, side) for sample in samples])

    def batch(
        self, samples: list[Sample], examples: list[Example], rng: np.random.Generator
    ) -> Batch:
        """Crops of the samples, and what the teacher makes of them."""
        config, patch = self.config, self.backbone.patch
        side = int(rng.choice(self.place_sides)) * patch
        corners = self._corners(side)
        chosen = rng.integers(0, len(corners), (len(samples), config.crops, 2))
        starts = [[(corners[y], corners[x]) for y, x in some] for some in chosen]
        crops = [
            _crop(sample, (*place, side), self.zoom, config.side)
            for sample, places in zip(samples, starts, strict=True)
            for place in places
        ]
        count = min(config.affinity_pixels, side * side)
        pixels = np.stack([rng.choice(side * side, count, replace=False) for _ in crops])
        with torch.no_grad():
            shrink = reduction(config.side, side).to(examples[0].features.device)
            target = torch.stack([shrink @ self._teach(crop) @ shrink.T for crop in crops])
        return Batch(examples, starts, target, torch.from_numpy(pixels).to(target.device))

    def _corners(self, side: int) -> list[int]:
        """Where crops may begin on an axis, in the student's pixels."""
        whole = self.config.side
        # A pixel of the enlarged image is a part of one of the student's.
        step = self.config.corner * side / whole or self.backbone.patch
        return [round(i * step) for i in range(int((whole - side) / step + 1e-9) + 1)]

    def _teach(self, crop: Sample) -> Tensor:
        """(C, S, S): the teacher's output for a crop, drawn to the masks."""
        device = next(self.teacher.parameters()).device
        image = torch.from_numpy(crop.image).permute(2, 0, 1)[None].to(device)
        features = self.backbone.features(image)
        with autocast(device, self.precision):
            output = self.teacher(features, image)[0].float()
        masks, members = torch.from_numpy(crop.masks).to(device), to_tensor(crop.members, device)
        return refine(output, masks, members, self.config.alpha)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The terms of the loss, and the mean cosine with the target."""
        output, _ = self.upsample(batch)
        assert batch.pixels is not None  # `batch` chooses them
        terms = {"affinity": affinity_loss(output, batch.target, batch.pixels)}
        terms |= self.common(output, batch)
        return terms | {"cosine": mean_cosine(output, batch.target)}

    def after_step(self, step: int) -> None:
        if step % self.config.teacher_every == 0:
            blend(self.teacher.state_dict(), self.student, self.config.teacher_decay)


def _crop(sample: Sample, place: tuple[int, int, int], zoom: int, side: int) -> Sample:
    """The teacher's view of a place (top, left, side) in the student's pixels."""
    top, left, extent = (n * zoom for n in place)
    return resize(cut(sample, (top, left, extent)), side)
