"""Files that are there whole or not at all; JSON and fingerprints of files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO


class WriteError(OSError):
    """A file cannot be written; the message says which, and why."""


class AtomicFile:
    """A binary file that takes its name when all of it is written, and leaves nothing otherwise.

        with AtomicFile("result.json") as file:
            file.write(b"...")

    Parent folders are made. What was there before stays until then. A link is written through;
    pipes and devices (/dev/stdout) take what comes as it comes. Nothing is made before the first
    `write`.

    Args:
        path: its name.

    Raises:
        WriteError: later, it cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self._given = path
        self._path = Path(os.path.realpath(path))
        self._temporary: Path | None = None  # where it is now
        self._file: BinaryIO | None = None

    def _open(self) -> BinaryIO:
        check_replaceable(self._given)
        if is_special(self._given):
            return open(self._given, "wb")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = self._path.parent / f".{uuid.uuid4().hex}.tmp"
        return self._temporary.open("wb")

    def write(self, data: bytes) -> None:
        """Append."""
        with self._said():
            self._file = self._file or self._open()
            self._file.write(data)

    def commit(self) -> None:
        """Give the file its name."""
        with self._said():
            self._file = self._file or self._open()  # there may have been nothing to write
            self._file.close()  # where a full disk may show first
            if self._temporary is not None:
                os.replace(self._temporary, self._path)
                self._temporary = None

    def discard(self) -> None:
        """Leave nothing of a file that is not committed; once it is, do nothing."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # a full disk was reported when it was written to
                self._file.close()
        if self._temporary is not None:
            with contextlib.suppress(OSError):
                self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> AtomicFile:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if kind is None:
                self.commit()
        finally:
            self.discard()

    @contextlib.contextmanager
    def _said(self) -> Iterator[None]:
        """Errors name the file that was asked for, not the temporary one."""
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            raise WriteError(f"cannot write {self._given}: {reason}") from error


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all; parent folders are made.

    Raises:
        WriteError: it cannot be written; what was there before is untouched.
    """
    with AtomicFile(path) as file:
        file.write(data)


def write_each(saves: Iterable[tuple[str | Path, Callable[[], object]]]) -> None:
    """Write several files, each whole or not at all; one that fails does not stop the others.

    Args:
        saves: name, for the message, and what writes it.

    Raises:
        OSError: what the first failure said, and which others are written.
    """
    first, written = None, []
    for name, save in saves:
        try:
            save()
            written.append(str(name))
        except (OSError, ValueError) as error:
            first = first or error
    if first is not None:
        there = f"; written: {', '.join(written)}" if written else ""
        raise OSError(f"{first}{there}") from first


def is_special(path: str | Path) -> bool:
    """Whether there is a pipe, a device or the like, which is written to and not replaced."""
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def check_replaceable(path: str | Path) -> None:
    """Refuse to replace a file that is protected: its folder alone would permit that.

    Raises:
        PermissionError: the file is there and must not be written.
    """
    if os.path.exists(path) and not os.path.isdir(path) and not os.access(path, os.W_OK):
        raise PermissionError(13, "the file is there and is write-protected", str(path))


def write_json(path: str | Path, data: Mapping[str, Any]) -> None:
    """Write JSON whole or not at all.

    Raises:
        OSError: the file cannot be written.
        ValueError: a number that JSON has no word for.
    """
    text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)
    # A lone surrogate (an undecodable byte of a file name) becomes "?": JSON cannot hold it.
    write_atomically(path, (text + "\n").encode("utf-8", errors="replace"))


def read_json(path: Path) -> dict[str, Any]:
    """The object of a JSON file.

    Raises:
        FileNotFoundError: it does not exist.
        ValueError: it is damaged.
    """
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error})") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path} is damaged (it holds a {type(data).__name__}, not an object)")
    return data


def sha256(*paths: Path) -> str:
    """SHA-256 of files, one after another, as hexadecimal digits.

    Raises:
        OSError: one cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
