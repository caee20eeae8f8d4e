"""The whole recipe: its parts, their order, and going on after a stop."""

import os
import sys

import pytest
import torch

from scripts import train_loftup, train_tiny


@pytest.fixture
def parts(monkeypatch) -> list[list[str]]:
    """Replaces the trainings by ones that only leave files; gives their command lines."""
    seen: list[list[str]] = []
    whole = train_tiny.main

    def program(argv: list[str]) -> int:
        if argv[0] == "all":
            return whole(argv)
        if "--stage" in argv:
            train_loftup.configure(train_loftup.parse_args(argv))  # the options exist
        seen.append(argv)
        folder = train_tiny.Path(argv[argv.index("--output") + 1])
        if "--export" in argv:
            file = train_tiny.Path(argv[argv.index("--export") + 1])
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
            return 0
        steps = int(argv[argv.index("--steps") + 1])
        folder.mkdir(parents=True, exist_ok=True)
        first = folder.name == "loftup1" and "--resume" not in argv
        torch.save({"step": steps // 2 if first else steps}, folder / "last.pt")
        return 0

    monkeypatch.setattr(train_tiny, "main", program)
    monkeypatch.setattr(train_loftup, "main", program)
    return seen


def test_all_goes_on_where_it_stopped(parts, tmp_path):
    command = ["all", "--output", str(tmp_path), "--share", "0.01", "--threads", "2"]
    assert train_tiny.main(command) == 130  # in the middle of LoftUp's first stage
    assert [argv[0] for argv in parts] == ["clip", "clip", "--stage"]
    assert parts[0][parts[0].index("--steps") + 1] == "110"
    del parts[:]
    assert train_tiny.main(command) == 0
    first, second, exported, sam, last = parts
    assert "--resume" in first and first[:2] == ["--stage", "1"]
    assert second[:2] == ["--stage", "2"] and "--resume" not in second
    assert str(tmp_path / "loftup1" / "best.safetensors") in second
    assert "--export" in exported and sam[0] == last[0] == "sam2"
    for name in train_tiny.FILES.values():
        assert (tmp_path / "models" / name).is_file()
    del parts[:]
    assert train_tiny.main(command) == 0 and not parts


def test_shares_outside_the_range_are_refused(tmp_path, capfd):
    with pytest.raises(SystemExit) as stopped:
        train_tiny.main(["all", "--output", str(tmp_path), "--share", "0"])
    assert stopped.value.code == 2 and "--share must be above 0" in capfd.readouterr().err


@pytest.mark.parametrize("name", train_tiny.TRAININGS)
def test_every_training_lists_its_options(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        train_tiny.main([name, "--help"])
    assert stopped.value.code == 0 and "--validate-every" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform != "linux", reason="settings of glibc")
def test_clip_alone_gives_freed_memory_back(monkeypatch):
    begun: list[dict[str, str]] = []
    monkeypatch.setattr(os, "execve", lambda _program, _argv, settings: begun.append(settings))
    train_tiny.set_allocator("clip")
    assert not begun  # imported: the process is somebody else's
    monkeypatch.setattr(train_tiny, "__name__", "__main__")
    train_tiny.set_allocator("sam2")
    assert not begun
    train_tiny.set_allocator("clip")
    assert begun[0].items() >= train_tiny.MALLOC.items()
    monkeypatch.setattr(os, "environ", begun.pop())
    train_tiny.set_allocator("clip")
    assert not begun
    train_tiny.set_allocator("sam2")
    assert not train_tiny.MALLOC.keys() & begun[0].keys()
