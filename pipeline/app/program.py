"""How a program ends: bad input, Ctrl-C, no memory and a closed pipe are one line, no traceback."""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from types import FrameType

from models.device import is_out_of_memory

# What asks a program to end besides Ctrl-C: `kill`, a batch system's time limit; a closed terminal.
_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
_BROKEN_PIPE = 141  # as programs end that SIGPIPE kills


def run_main(run: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Run a program; the exit code is its own, 2 for bad input, 130 if it was interrupted.

    Warnings go to stderr. Bad input, a file that cannot be written and too little memory become one
    line there. SIGTERM and SIGHUP are as Ctrl-C. Other errors are bugs, and are raised.
    """
    logging.basicConfig(
        level=logging.INFO if args.verbose else logging.WARNING, format="%(levelname)s: %(message)s"
    )
    logging.getLogger("pipeline.progress").setLevel(logging.INFO)
    try:
        with _signals_interrupt(), _stdout_takes_all():
            code = run(args)
            if sys.stdout is not None:  # None: it was closed before the start
                sys.stdout.flush()  # when the process ends nobody could report that it failed
            return code
    except KeyboardInterrupt as interrupt:
        _say(": ".join(["interrupted", *map(str, interrupt.args)]), args)
        return 130
    except BrokenPipeError:  # `| head` has seen enough
        _forget_stdout()
        return _BROKEN_PIPE
    except (ValueError, OSError) as error:
        _say(f"error: {' '.join(str(error).split()) or type(error).__name__}", args)
        _forget_stdout()
        return 2
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        _say(
            f"error: out of memory ({' '.join(str(error).split())[:200] or 'of the machine'}); "
            "take a smaller image or fewer words, end other programs, or choose another --device",
            args,
        )
        return 2


def _say(line: str, args: argparse.Namespace) -> None:
    if args.verbose and not line.startswith("interrupted"):
        traceback.print_exc()
    print(line, file=sys.stderr)


@contextlib.contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Within, signals that end a program raise KeyboardInterrupt, so that it can clean up."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {}
    if threading.current_thread() is threading.main_thread():  # elsewhere Python allows none
        for number in _SIGNALS:
            if signal.getsignal(number) is signal.SIG_DFL:  # `nohup` ignores SIGHUP, a host may too
                before[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _stdout_takes_all() -> Iterator[None]:
    """Within, characters that the terminal cannot show are printed as escapes, not refused."""
    stdout = sys.stdout
    if not isinstance(stdout, io.TextIOWrapper):
        yield
        return
    errors = stdout.errors
    stdout.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            stdout.reconfigure(errors=errors)


def _forget_stdout() -> None:
    """What a broken stdout still holds is dropped: Python would complain when it ends."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):  # it has no file of its own
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stdout.fileno())
            os.close(null)
