"""How far a long run is: a bar in a terminal, now and then a line in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm

logger = logging.getLogger("pipeline.progress")  # programs show its level INFO, too
LINES = 20  # at most, of a run

T = TypeVar("T")


def progress(items: Sequence[T], unit: str, failed: Callable[[], int] = lambda: 0) -> Iterator[T]:
    """The items, one after the other; how far that is, is told on stderr.

    Args:
        items: of the run.
        unit: what one of them is called: "image".
        failed: how many had no result so far.
    """
    if sys.stderr is not None and sys.stderr.isatty():
        with tqdm(items, unit=unit) as bar:
            for item in bar:
                yield item
                if count := failed():
                    bar.set_postfix(failed=count)
        return
    start, step = time.monotonic(), -(-len(items) // LINES)
    for number, item in enumerate(items, start=1):
        yield item
        if number % step == 0 or number == len(items):
            seconds = time.monotonic() - start
            left = seconds / number * (len(items) - number)
            logger.info(
                "%d of %d %ss, %d failed, %s gone, about %s left",
                number, len(items), unit, failed(), _clock(seconds), _clock(left),
            )  # fmt: skip


def _clock(seconds: float) -> str:
    """1:02:03, or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
