"""Lists that a user keeps in a text file: what "@file" stands for."""

from __future__ import annotations

import os
from pathlib import Path


def read_list(name: str, *, what: str, entry: str) -> list[tuple[int, str]]:
    """The lines of a UTF-8 file that say something, stripped, each with its number from 1.

    Blank lines and those that start with `#` say nothing.

    Args:
        name: the file's, without "@".
        what: the file is called so in messages: "vocabulary file".
        entry: what a line holds: "class".

    Raises:
        FileNotFoundError: no such file.
        ValueError: no name, a folder, not UTF-8, or a file that says nothing.
    """
    path = Path(os.path.expanduser(name))  # not Path's: RuntimeError if there is no such user
    if not name.strip() or path.is_dir():
        raise ValueError(f"'@{name}' must name a text file with one {entry} per line")
    if not path.exists():
        raise FileNotFoundError(f"{what} not found: '{name}' (from '@{name}')")
    try:
        text = path.read_text(encoding="utf-8-sig")  # a byte order mark is dropped
    except UnicodeDecodeError as error:
        raise ValueError(f"{what} '{name}' is not UTF-8 text; save it as UTF-8") from error
    # Not `splitlines`: names of files may hold the rarer signs that it takes for ends of lines.
    lines = enumerate(map(str.strip, text.split("\n")), start=1)
    found = [(number, line) for number, line in lines if line and not line.startswith("#")]
    if not found:
        raise ValueError(f"{what} '{name}' names no {entry}; write one per line")
    return found
