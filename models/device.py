"""The device to compute on, and what its work costs."""

from __future__ import annotations

import time

import torch


def pick_device(name: str | torch.device | None = None) -> torch.device:
    """A torch device that exists on this machine; None takes cuda, else mps, else cpu.

    Raises:
        ValueError: unknown, or not available here; the message lists those that are.
    """
    available = ["cpu"]
    if torch.backends.mps.is_available():
        available.insert(0, "mps")
    if torch.cuda.is_available():
        available[:0] = ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if name is None:
        return torch.device(available[0])
    if str(name) not in available:
        raise ValueError(f"device {str(name)!r} is not available; here: {', '.join(available)}")
    return torch.device(name)


def clock(device: torch.device) -> float:
    """The clock (`time.perf_counter`), read when all work given to the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()
