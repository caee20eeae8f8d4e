"""Weights of what is trained: their moving average, and files of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

logger = logging.getLogger(__name__)


@torch.no_grad()
def blend(weights: dict[str, Tensor], module: nn.Module, decay: float) -> None:
    """In place: decay · weights + (1 − decay) · the module's; counters are copied."""
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            weights[name].lerp_(value, 1 - decay)
        else:
            weights[name].copy_(value)


class MovingAverage:
    """Exponential moving average of a module's weights, the part of a short run worth keeping."""

    def __init__(self, module: nn.Module, decay: float = 0.999) -> None:
        self.decay, self.count = decay, 0
        self.weights = {k: v.detach().clone() for k, v in module.state_dict().items()}

    def update(self, module: nn.Module) -> None:
        # Young averages forget their start faster: (1 + n) / (10 + n) is the usual ramp.
        self.count += 1
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        blend(self.weights, module, decay)

    def state_dict(self) -> dict[str, Any]:
        return {"weights": self.weights, "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state["weights"].items():
            self.weights[name].copy_(value)  # on its own device
        self.count = state["count"]


def save_weights(weights: Mapping[str, Tensor], path: Path, *, half: bool = False) -> None:
    """Write weights, whole or not at all: .safetensors, or .bin / .pt / .pth as torch does.

    Args:
        weights: a state dict.
        path: file to write; folders are made.
        half: floating numbers in 16 bits; counters stay integers.

    Raises:
        ValueError: unknown kind of file.
    """
    if path.suffix not in (".safetensors", ".bin", ".pt", ".pth"):
        raise ValueError(f"{path} has no suffix of weights: use .safetensors, .bin or .pt")
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {
        k: (v.half() if half and v.is_floating_point() else v).detach().cpu().contiguous().clone()
        for k, v in weights.items()
    }
    temporary = path.with_name(f"{path.name}.tmp")
    (save_file if path.suffix == ".safetensors" else torch.save)(weights, str(temporary))
    temporary.replace(path)
    logger.info("wrote %s (%.1f MB)", path, path.stat().st_size / 1e6)
