"""The scenes of every training step, a function of seed and step alone."""

from __future__ import annotations

import numpy as np

from ...world.scenes import Scene, World
from .examples import Batch, make_batch, mirror, random_scene

_TRAINING = 30_000  # first of the numbers that seed training; held-out scenes have another
_SCENES, _PROMPTS = range(2)
AGAIN_AFTER = 16  # steps after which a scene is shown once more, mirrored


class SceneSource:
    """Batches of new scenes and, for half of them, earlier ones mirrored.

    Rendering all of them anew would take a tenth of a step's time. A resumed run renders the
    earlier ones again, from the same seeds.
    """

    def __init__(self, world: World, seed: int, *, images: int, objects: int, side: int) -> None:
        self.world, self.seed = world, seed
        self.images, self.objects, self.side = images, objects, side
        self._groups: dict[int, list[Scene]] = {}

    def batch(self, step: int) -> Batch:
        """The examples of one step; the first steps' earlier scenes have negative numbers."""
        first, again = step - AGAIN_AFTER, self.images // 2
        for number in [n for n in self._groups if n < first]:
            del self._groups[number]
        for number in range(first, step + 1):
            if number not in self._groups:
                self._groups[number] = self._draw(number)
        scenes = self._groups[step] + [mirror(scene) for scene in self._groups[first][:again]]
        rng = np.random.default_rng([_TRAINING, self.seed, _PROMPTS, step])
        return make_batch(scenes, rng, side=self.side, most_objects=self.objects)

    def _draw(self, group: int) -> list[Scene]:
        rng = np.random.default_rng([_TRAINING, self.seed, _SCENES, group + AGAIN_AFTER])
        scenes: list[Scene] = []
        while len(scenes) < self.images - self.images // 2:
            scene = random_scene(self.world, rng)
            if scene.objects:
                scenes.append(scene)
        return scenes
