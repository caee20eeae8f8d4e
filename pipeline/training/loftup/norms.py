"""The batch norms of LoftUp's two convolutions: their statistics, and when they are fixed."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from models.loftup.guide import Window, scale_colours
from models.loftup.network import LoftUp

from .config import LoftUpConfig
from .pool import norms_generator
from .students import Student


class Norms:
    """Whether the batch norms are frozen; part of a checkpoint."""

    def __init__(self, student: Student, config: LoftUpConfig) -> None:
        self.student, self.config, self.frozen = student, config, False

    def advance(self, progress: float, images: list[Tensor], step: int) -> None:
        """Freeze them when it is time, with the statistics of whole images."""
        if not self.frozen and progress >= self.config.freeze:
            if step:
                self.recalibrate(self.student, images, step)
            self.load_state_dict({"frozen": True})

    def recalibrate(self, student: Student, images: list[Tensor], step: int) -> None:
        """Give a LoftUp the statistics of whole images, if it has seen windows alone."""
        if self.config.windows and not self.frozen and isinstance(student, LoftUp):
            recalibrate(student, images, norms_generator(self.config.seed, step))

    def state_dict(self) -> dict[str, bool]:
        return {"frozen": self.frozen}

    def load_state_dict(self, state: dict[str, bool]) -> None:
        self.frozen = state["frozen"]
        if self.frozen:
            freeze_norms(self.student)


@torch.no_grad()
def recalibrate(loftup: LoftUp, images: list[Tensor], rng: np.random.Generator) -> None:
    """Set the batch norms' running statistics to those of evenly drawn windows of `images`.

    Training windows prefer outlines; whole images, which the statistics are for, do not.
    """
    net, side = loftup.upsampler, min(64, *images[0].shape[1:])
    guides = []
    for image in images:
        top, left = (int(rng.integers(0, n - side + 1)) for n in image.shape[1:])
        scaled = scale_colours(image[None])
        guides.append(net.encode_guide(scaled, Window(top, left, side, side)))
    norms = batch_norms(loftup)
    before = [(m.training, m.momentum) for m in norms]
    for m in norms:
        m.train()
        m.momentum = 1.0
    with torch.autocast(images[0].device.type, torch.bfloat16):
        net.first_conv(torch.cat(guides))
    for m, (training, momentum) in zip(norms, before, strict=True):
        m.train(training)
        m.momentum = momentum


def batch_norms(student: nn.Module) -> list[nn.BatchNorm2d]:
    """LoftUp's two batch norms; NAF has none."""
    return [m for m in student.modules() if isinstance(m, nn.BatchNorm2d)]


def freeze_norms(student: nn.Module) -> None:
    """Batch norms use their running statistics from now on, in training mode as well."""
    for m in batch_norms(student):
        m.eval()
