"""How programs end: whatever happens, one line and an exit code."""

import argparse
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipeline.app.program import run_main

ROOT = Path(__file__).parents[3]
ARGS = argparse.Namespace(verbose=False)


def raising(error: BaseException):
    def run(args: argparse.Namespace) -> int:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("first\n  second"), "error: first second\n"),
        (FileNotFoundError(2, "No such file", "a.jpg"), "error: [Errno 2] No such file: 'a.jpg'\n"),
        (ValueError(), "error: ValueError\n"),
    ],
)
def test_errors_become_one_line(error, line, capsys):
    assert run_main(raising(error), ARGS) == 2
    assert capsys.readouterr() == ("", line)
    assert run_main(raising(error), argparse.Namespace(verbose=True)) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err and err.endswith(line)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("Unable to allocate 9.3 TiB"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\n More."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate "
                     "memory: you tried to allocate 9000000000 bytes. Error code 12"),
        RuntimeError("MPS backend out of memory"),
    ],
)  # fmt: skip
def test_out_of_memory_says_what_to_do(error, capsys):
    assert run_main(raising(error), ARGS) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and err.startswith("error: out of memory (")
    assert "smaller image" in err and "--device" in err


def test_a_real_allocation_that_is_too_large(capsys):
    assert run_main(lambda args: torch.empty(2**60, dtype=torch.uint8), ARGS) == 2
    assert capsys.readouterr().err.startswith("error: out of memory (")


def test_other_ends(capsys):
    assert run_main(lambda args: 0, ARGS) == 0
    assert run_main(raising(KeyboardInterrupt()), ARGS) == 130
    assert run_main(raising(KeyboardInterrupt("1 of 2")), ARGS) == 130
    assert capsys.readouterr().err == "interrupted\ninterrupted: 1 of 2\n"
    with pytest.raises(RuntimeError):
        run_main(raising(RuntimeError("a bug of ours is not the user's input")), ARGS)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_are_as_ctrl_c(number, capsys):
    cleaned = []

    def run(args: argparse.Namespace) -> int:
        try:
            os.kill(os.getpid(), number)
            for _ in range(1000):  # Python calls the handler between two steps
                pass
            return 0
        finally:
            cleaned.append(True)

    before = signal.signal(number, signal.SIG_DFL)
    try:
        assert run_main(run, ARGS) == 130 and cleaned
        assert capsys.readouterr().err == "interrupted\n"
        assert signal.getsignal(number) is signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN)  # as under nohup
        assert run_main(run, ARGS) == 0
    finally:
        signal.signal(number, before)


def test_programs_do_not_change_logging_of_their_host():
    level = logging.getLogger().level
    run_main(lambda args: 0, argparse.Namespace(verbose=True))
    assert logging.getLogger().level == level


PRINTS = """
import argparse, sys
from pipeline.app.program import run_main
def run(args):
    for _ in range({lines}):
        print("\\U0001F600 caf\\u00e9 \\udcff")
    return 0
sys.exit(run_main(run, argparse.Namespace(verbose=False)))
"""


def test_what_stdout_cannot_take():
    def run(lines: int, stdout, **environment: str) -> tuple[int, bytes, bytes]:
        program = subprocess.Popen(
            [sys.executable, "-c", PRINTS.format(lines=lines)], stdout=stdout,
            stderr=subprocess.PIPE, cwd=ROOT, env=os.environ | environment,
        )  # fmt: skip
        if lines > 1:
            program.stdout.close()  # `| head`
            program.stdout = None
        out, err = program.communicate(timeout=60)
        return program.returncode, out, err

    escaped = b"\\U0001f600 caf\\xe9 \\udcff\n"
    assert run(1, subprocess.PIPE, PYTHONIOENCODING="ascii") == (0, escaped, b"")
    assert run(50_000, subprocess.PIPE) == (141, None, b"")
    with open("/dev/full", "wb") as full:
        message = b"error: [Errno 28] No space left on device\n"
        assert run(1, full) == (2, None, message)
