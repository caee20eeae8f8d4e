"""Where there is no terminal, a long run says now and then how far it is."""

import io
import logging
import re
import sys

import pytest

from pipeline.app.progress import LINES, progress


@pytest.mark.parametrize(
    ("count", "lines"), [(0, 0), (1, 1), (7, 7), (20, 20), (21, 11), (999, 20)]
)
def test_lines_of_a_log(count, lines, caplog):
    caplog.set_level(logging.INFO, "pipeline.progress")
    assert list(progress(range(count), "image")) == list(range(count))
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == lines <= LINES
    if said:
        assert said[-1].startswith(f"{count} of {count} images, 0 failed, 0:00 gone")


def test_failures_and_time(caplog, monkeypatch):
    caplog.set_level(logging.INFO, "pipeline.progress")
    times = iter([0.0, 1800.0, 3660.0, 5500.0, 7400.0])
    monkeypatch.setattr("pipeline.app.progress.time.monotonic", lambda: next(times))
    failed: list[int] = []
    for number in progress(range(4), "image", failed.__len__):
        if number == 1:
            failed.append(number)
    assert [record.getMessage() for record in caplog.records][1:3] == [
        "2 of 4 images, 1 failed, 1:01:00 gone, about 1:01:00 left",
        "3 of 4 images, 1 failed, 1:31:40 gone, about 30:33 left",
    ]


def test_a_terminal_has_a_bar(caplog, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    caplog.set_level(logging.INFO, "pipeline.progress")
    assert list(progress([1, 2, 3], "image")) == [1, 2, 3]
    assert re.search(r"100%.* 3/3 ", terminal.getvalue()) and not caplog.records
