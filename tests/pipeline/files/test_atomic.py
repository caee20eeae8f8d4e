"""Files that are there whole or not at all."""

import hashlib
import os
import threading

import pytest

from pipeline.files.atomic import (
    AtomicFile,
    WriteError,
    read_json,
    sha256,
    write_atomically,
    write_each,
    write_json,
)  # fmt: skip
from tests.disk import contents, full_disk


@pytest.mark.parametrize("size", [3, 300_000])  # shows when the file is closed, or written to
def test_a_full_disk_leaves_the_old_file(size, tmp_path):
    path = tmp_path / "new" / "a.txt"
    write_atomically(path, b"old")
    with full_disk(2), pytest.raises(WriteError) as raised:
        write_atomically(path, b"x" * size)
    assert str(raised.value) == f"cannot write {path}: File too large"
    assert contents(tmp_path) == {"new": None, "new/a.txt": b"old"}
    write_atomically(path, b"x" * size)
    assert contents(tmp_path) == {"new": None, "new/a.txt": b"x" * size}


def test_whatever_stops_it_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), AtomicFile(tmp_path / "a.txt") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert contents(tmp_path) == {}
    file.discard()  # again: nothing
    AtomicFile(tmp_path / "a.txt").discard()
    assert contents(tmp_path) == {}
    AtomicFile(tmp_path / "empty").commit()
    assert contents(tmp_path) == {"empty": b""}
    (tmp_path / "empty").unlink()
    with AtomicFile(tmp_path / "a.txt") as file:
        file.write(b"one ")
        assert not (tmp_path / "a.txt").exists()
        file.write(b"two")
    file.discard()
    assert contents(tmp_path) == {"a.txt": b"one two"}


def test_unwritable_places(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    before = contents(tmp_path)
    for name, reason in (
        ("file/a.txt", "(File exists|Not a directory)"),
        ("folder", "Is a directory"),
        ("n" * 300, "File name too long"),
    ):
        with pytest.raises(WriteError, match=f"^cannot write {tmp_path / name}: {reason}$"):
            write_atomically(tmp_path / name, b"y")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(WriteError, match=r"file: the file is there and is write-protected$"):
        write_atomically(tmp_path / "file", b"y")
    assert contents(tmp_path) == before


def test_link_is_written_through(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    write_atomically(link, b"new")
    assert link.is_symlink() and target.read_text() == "new"
    (tmp_path / "loop").symlink_to("loop")  # leads nowhere
    write_atomically(tmp_path / "loop", b"new")
    assert (tmp_path / "loop").read_bytes() == b"new"


def test_pipes_and_devices_stay_what_they_are(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    write_atomically(pipe, b"data")
    reader.join(10)
    assert got == [b"data"] and pipe.is_fifo() and list(tmp_path.iterdir()) == [pipe]
    with pytest.raises(WriteError, match=r"^cannot write /dev/full: No space left on device$"):
        write_atomically("/dev/full", b"data")


def test_json_and_fingerprints(tmp_path):
    path, other = tmp_path / "new" / "a.json", tmp_path / "b"
    write_json(path, {"à": [1, 0.5, None], "b": "\udce9"})
    assert read_json(path) == {"à": [1, 0.5, None], "b": "?"}
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"x": float("nan")})
    other.write_bytes(b"x" * 3_000_000)
    together = hashlib.sha256(path.read_bytes() + other.read_bytes()).hexdigest()
    assert sha256(path, other) == together and sha256(path) != sha256(other)
    for text, reason in (("{", "Expecting"), ("[]", "it holds a list"), ("[" * 100_000, "")):
        path.write_text(text)
        with pytest.raises(ValueError, match=rf"a\.json is damaged \(.*{reason}"):
            read_json(path)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "c.json")


def test_one_that_fails_does_not_stop_the_others(tmp_path):
    (tmp_path / "file").touch()
    names = ["file/a", "b", "file/c", "d"]
    saves = [(name, lambda name=name: write_atomically(tmp_path / name, b"x")) for name in names]
    with pytest.raises(OSError, match=r"cannot write .*file/a: .*; written: b, d$"):
        write_each(saves)
    assert contents(tmp_path) == {"b": b"x", "d": b"x", "file": b""}
    write_each(saves[1::2])
