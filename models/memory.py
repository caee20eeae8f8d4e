"""Out of memory, as everybody says it differently."""

from __future__ import annotations

import sys

# What is said without an exception of its own: torch on a CPU and on MPS, CUDA's libraries, OpenCV.
_SAID = ("can't allocate memory", "out of memory", "ALLOC_FAILED", "Insufficient memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, of the machine or of its GPU, ran out."""
    if isinstance(error, MemoryError):  # also numpy's
        return True
    torch = sys.modules.get("torch")  # not imported here: then the error cannot be torch's
    if isinstance(error, getattr(torch, "OutOfMemoryError", ())):
        return True
    theirs = isinstance(error, RuntimeError) or type(error).__module__.startswith("cv2")
    return theirs and any(words in str(error) for words in _SAID)
