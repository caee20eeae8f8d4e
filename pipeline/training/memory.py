"""Keeps a long training run's memory from growing."""

from __future__ import annotations

import contextlib
import ctypes
import logging
from collections.abc import Iterator

logger = logging.getLogger(__name__)

# Parameters of glibc's mallopt (malloc.h), what they are set to, and what they are set to after.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_WITHIN = ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, 1_000_000), (_TRIM_THRESHOLD, 1_000_000))
_AFTER = ((_MMAP_THRESHOLD, 2**25), (_TRIM_THRESHOLD, 2**26))


@contextlib.contextmanager
def freed_memory_returned() -> Iterator[bool]:
    """Within, the C library gives large freed blocks back to the system at once.

    Steps whose tensors differ in size leave holes that glibc's heap keeps: a CLIP run grew to ten
    times what it used. Where sizes stay the same there is nothing to gain, and mapping every block
    anew costs a third of the time.

    Yields:
        Whether the C library is one that can be told so (glibc).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        yield False
        return
    done = all([mallopt(option, value) for option, value in _WITHIN])
    logger.debug("large freed blocks return to the system: %s", done)
    try:
        yield done
    finally:
        for option, value in _AFTER:
            mallopt(option, value)
