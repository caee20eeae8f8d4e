"""Freed memory goes back to the system."""

import platform
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.training.memory import freed_memory_returned


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_the_c_library_is_told():
    with freed_memory_returned() as told:
        assert told is (platform.libc_ver()[0] == "glibc")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_blocks_of_megabytes_go_back_within():
    with freed_memory_returned() as told:
        blocks = [np.ones(2_000_000, np.uint8) for _ in range(100)]
        kept = blocks[99]
        full = resident()
        del blocks
        assert kept.sum() == 2_000_000
        if told:
            assert resident() < full - 150_000_000
