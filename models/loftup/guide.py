"""What LoftUp sees of the image that guides it: scaled colours and positions, as waves.

Shapes: B batch, S signals, F frequencies, H W pixels.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Window(NamedTuple):
    """A rectangle of the guide image, pixels."""

    top: int
    left: int
    height: int
    width: int


def scale_colours(image: Tensor) -> Tensor:
    """Min-max scale every channel of every image to [-0.5, 0.5]; (B, 3, H, W) float32.

    Per image, not per batch as in the published code, so that a result does not depend on what
    else is in the batch. The order of operations is part of the numbers: frequencies up to e^10
    turn one float32 rounding into a phase error of 1e-3.
    """
    image = image.float()
    low, high = image.amin((2, 3), keepdim=True), image.amax((2, 3), keepdim=True)
    return (image - low) / (high - low).clamp_min(1e-4) - 0.5


class FourierFeatures(nn.Module):
    """Sines and cosines of signals at log-spaced frequencies, with learned phases."""

    def __init__(self, signals: int, frequencies: int) -> None:
        super().__init__()
        self.biases = nn.Parameter(torch.randn(2, signals, frequencies))

    def forward(self, signals: Tensor) -> Tensor:
        """(B, S, H, W) float32 -> (B, 2·S·F, H, W): all sines, then all cosines, index S·f + s."""
        _, count, steps = self.biases.shape
        # Checkpoints hold (S, F) tables whose *reshaping*, not transposing, gives (F, S).
        phases = self.biases.float().reshape(2, steps, count, 1, 1)
        waves = signals[:, None] * self.frequencies()[:, None, None, None]  # (B, F, S, H, W)
        sines, cosines = (waves + phases[0]).sin(), (waves + phases[1]).cos()
        return torch.cat([sines.flatten(1, 2), cosines.flatten(1, 2)], dim=1)

    def frequencies(self) -> Tensor:
        """(F,) float32; made on the CPU: devices round differently."""
        steps = self.biases.shape[2]
        return torch.linspace(-2, 10, steps, device="cpu").exp().to(self.biases.device)


def coordinates(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Row positions (H,) and column positions (W,) in [-1, 1], float32 on the CPU.

    Made there: devices round linspace differently, which the high frequencies would amplify.
    """
    return torch.linspace(-1, 1, height, device="cpu"), torch.linspace(-1, 1, width, device="cpu")
