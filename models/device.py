"""The device to compute on: how precisely, what its work costs, and when its memory runs out.

Importing it imports no torch, so that programs can tell errors before there is any.
"""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PRECISIONS = ("float32", "bfloat16")
# How memory runs out without an exception of its own: torch on a CPU and on MPS, CUDA's libraries,
# OpenCV.
_OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "ALLOC_FAILED", "Insufficient memory")


def pick_device(name: str | torch.device | None = None) -> torch.device:
    """A torch device that exists on this machine; None takes cuda, else mps, else cpu.

    Raises:
        ValueError: unknown, or not available here; the message lists those that are.
    """
    import torch

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


def check_precision(name: str, device: torch.device) -> torch.dtype:
    """The type of a device's large products.

    Raises:
        ValueError: unknown, or bfloat16 where it would take longer than float32.
    """
    if name not in PRECISIONS:
        raise ValueError(f"unknown precision {name!r}; valid: {', '.join(PRECISIONS)}")
    if name == "bfloat16" and not fast_bfloat16(device):
        raise ValueError(
            f"precision bfloat16 gains nothing on this {device.type}, which has no instructions "
            "for it that are known to be fast: take float32"
        )
    import torch

    return getattr(torch, name)


def fast_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for products in bfloat16 that torch uses."""
    import torch

    if device.type == "cpu":
        able = torch.cpu.get_capabilities()
        return any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "sve_bf16"))
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager:
    """Products in `dtype` within; float32 changes nothing, not even an autocast around it."""
    import torch

    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype)


def clock(device: torch.device) -> float:
    """The clock (`time.perf_counter`), read when all work given to the device is done."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, of the machine or of its GPU, ran out."""
    if isinstance(error, MemoryError):  # also numpy's
        return True
    torch = sys.modules.get("torch")  # not imported here: then the error cannot be torch's
    if isinstance(error, getattr(torch, "OutOfMemoryError", ())):
        return True
    theirs = isinstance(error, RuntimeError) or type(error).__module__.startswith("cv2")
    return theirs and any(words in str(error) for words in _OUT_OF_MEMORY)
