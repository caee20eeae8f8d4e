"""The images of every step, a function of seed, process and step alone.

Images come in numbered groups. A step has the newest group, and draws the rest of its batch from
the groups before, whose features are kept: an image's features cost as much as training on three
of its windows. A resumed run makes the groups anew, from the same seeds.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from ..loop import Ahead
from .config import LoftUpConfig
from .samples import Sample, Source
from .stage import Stage
from .targets import Example

_TRAINING = 20_000  # first of the numbers that seed training; held-out scenes have another
_GROUP, _STEP, _NORMS = range(3)


def step_generator(seed: int, rank: int, step: int) -> np.random.Generator:
    """The source of all chance in one step of one process, images aside."""
    return np.random.default_rng([_TRAINING, seed, _STEP, rank, step])


def norms_generator(seed: int, step: int) -> np.random.Generator:
    """The source of chance where batch norms are set anew: the same in every process."""
    return np.random.default_rng([_TRAINING, seed, _NORMS, step])


class Pool(Ahead[list[Sample]]):
    """Groups of samples, drawn ahead in threads; use it as a context.

    Args:
        source: draws the samples.
        stage: gives them features.
        config: how many, and of which side.
        rank: number of this process among those that train together.
        workers: threads that draw.
    """

    def __init__(
        self, source: Source, stage: Stage, config: LoftUpConfig, *, rank: int, workers: int
    ) -> None:
        super().__init__(self._draw, workers)
        self.source, self.stage, self.config, self.rank = source, stage, config, rank
        self._groups: dict[int, list[tuple[Sample, Example]]] = {}

    @property
    def images(self) -> list[Tensor]:
        """(3, S, S) uint8, all that are kept."""
        return [example.image for group in self._groups.values() for _, example in group]

    def batch(self, step: int, rng: np.random.Generator) -> tuple[list[Sample], list[Example]]:
        """The samples and examples of one step; `rng` is the step's."""
        newest = step + self.config.kept // self.config.new_per_step - 1
        for number in [n for n in self._groups if n < step]:
            del self._groups[number]
        for number in range(step, newest + 1):
            if number not in self._groups:
                samples = self[number]
                self._groups[number] = list(zip(samples, self.stage.examples(samples), strict=True))
        older = [pair for n in range(step, newest) for pair in self._groups[n]]
        others = rng.permutation(len(older))[: self.config.batch - self.config.new_per_step]
        pairs = self._groups[newest] + [older[i] for i in others]
        return [sample for sample, _ in pairs], [example for _, example in pairs]

    def _draw(self, group: int) -> list[Sample]:
        rng = np.random.default_rng([_TRAINING, self.config.seed, _GROUP, self.rank, group])
        side = self.config.side * self.stage.zoom
        return [self.source.draw(rng, side) for _ in range(self.config.new_per_step)]
