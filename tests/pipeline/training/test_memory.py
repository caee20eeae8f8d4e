"""Freed memory goes back to the system."""

import platform

from pipeline.training.memory import return_freed_memory


def test_the_c_library_is_told():
    assert return_freed_memory() is (platform.libc_ver()[0] == "glibc")
