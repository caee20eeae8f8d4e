"""Keeps a long training run's memory from growing."""

from __future__ import annotations

import ctypes
import logging

logger = logging.getLogger(__name__)

# Parameters of glibc's mallopt (malloc.h).
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_BYTES = 1_000_000


def return_freed_memory() -> bool:
    """Have the C library give large freed blocks back to the system at once.

    Steps whose tensors differ in size leave holes that glibc's heap keeps: a CLIP run grew to ten
    times what it used. With this its larger blocks are mapped on their own.

    Returns:
        Whether the C library is one that can be told so (glibc).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    options = ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, _BYTES), (_TRIM_THRESHOLD, _BYTES))
    done = all([mallopt(option, value) for option, value in options])
    logger.debug("large freed blocks return to the system: %s", done)
    return done
