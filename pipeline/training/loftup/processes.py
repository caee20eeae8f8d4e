"""One process, or several that train together through Hugging Face accelerate."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from models.device import pick_device


class Processes:
    """The only process there is.

    Attributes:
        rank, count: number of this process, and how many there are.
        device: where it computes.
    """

    def __init__(self, device: str | None = None) -> None:
        self.rank, self.count, self.device = 0, 1, pick_device(device)

    def wrap(self, stage: nn.Module) -> nn.Module:
        """The module to call for a step's terms; keep it until after `backward`."""
        return stage

    def backward(self, loss: Tensor) -> None:
        """Gradients of the loss, averaged over the processes."""
        loss.backward()

    def any(self, mine: bool) -> bool:
        """Whether any process says so."""
        return mine


class Accelerated(Processes):
    """The processes that `accelerate launch` started; each has a batch of its own.

    Raises:
        ValueError: accelerate is not installed; the message says how to.
    """

    def __init__(self, device: str | None = None) -> None:
        try:
            from accelerate import Accelerator
        except ModuleNotFoundError as error:
            raise ValueError(
                "--accelerate needs Hugging Face accelerate: pip install accelerate, then start "
                "with accelerate launch scripts/train_loftup.py --accelerate …"
            ) from error
        # Mixed precision is the stage's own matter, so that one process computes the same.
        self._accelerator: Any = Accelerator(cpu=device == "cpu", mixed_precision="no")
        self.rank = self._accelerator.process_index
        self.count = self._accelerator.num_processes
        self.device = self._accelerator.device

    def wrap(self, stage: nn.Module) -> nn.Module:
        return self._accelerator.prepare_model(stage)

    def backward(self, loss: Tensor) -> None:
        self._accelerator.backward(loss)

    def any(self, mine: bool) -> bool:
        flag = torch.tensor([float(mine)], device=self.device)
        return bool(self._accelerator.reduce(flag, reduction="sum").item())
