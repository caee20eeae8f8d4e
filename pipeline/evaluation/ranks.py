"""Processes that share a job, as torchrun or accelerate launch start them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from models.device import pick_device


@dataclass(frozen=True)
class Ranks:
    """This process among all: number `rank` of `world`, computing on `device`."""

    rank: int
    world: int
    device: torch.device

    def barrier(self) -> None:
        """Wait until all processes are here."""
        self.gather(None)

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, by rank, in every process."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def any(self, mine: bool) -> bool:
        """Whether any process says so."""
        return any(self.gather(mine))

    def share(self, module: nn.Module) -> nn.Module:
        """The module to call, so that all processes get their gradients' mean.

        Keep it until after `backward`.
        """
        return module if self.world == 1 else DistributedDataParallel(module)


@contextmanager
def join_ranks(device: str | None = None) -> Iterator[Ranks]:
    """Join the processes of the launcher, or be alone without one.

    Args:
        device: cuda, mps or cpu; None takes the best there is. With cuda, every process of a
            machine takes a GPU of its own (gloo for what is on the CPU, nccl for the rest).

    Raises:
        ValueError: no such device, or fewer GPUs than processes on this machine.
    """
    chosen = pick_device(device)
    if "RANK" not in os.environ:  # the launchers set it
        yield Ranks(0, 1, chosen)
        return
    backend = "gloo"
    if chosen.type == "cuda":
        local = int(os.environ.get("LOCAL_RANK", 0))
        if local >= torch.cuda.device_count():
            raise ValueError(
                f"process {local} of this machine has no GPU of its own: there are "
                f"{torch.cuda.device_count()}; lower --nproc-per-node or add --device cpu"
            )
        chosen = torch.device("cuda", local)
        torch.cuda.set_device(chosen)
        backend = "cpu:gloo,cuda:nccl"  # what is gathered here is on the CPU
    # Shares take unequal time: the first to finish waits for the last, not for half an hour. Should
    # a process die, the launcher ends the others.
    dist.init_process_group(backend, timeout=timedelta(days=7))
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), chosen)
    finally:
        dist.destroy_process_group()
