"""Freed memory goes back to the system."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.training.memory import freed_memory_returned

# A process of its own: in an old one the blocks may come from memory that was free before.
PROGRAM = """
import numpy as np
from pipeline.training.memory import freed_memory_returned

def resident():
    with open("/proc/self/status") as file:
        return int(next(line for line in file if line.startswith("VmRSS")).split()[1])

with freed_memory_returned() as told:
    blocks = [np.ones(2_000_000, np.uint8) for _ in range(100)]
    kept, full = blocks[99], resident()
    del blocks
    print(int(told), full - resident())  # kB
"""


def test_the_c_library_is_told():
    with freed_memory_returned() as told:
        assert told is (platform.libc_ver()[0] == "glibc")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_blocks_of_megabytes_go_back_within():
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", PROGRAM]
    told, freed = subprocess.check_output(command, cwd=root, text=True).split()
    assert told == "0" or int(freed) > 150_000
