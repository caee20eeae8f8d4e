"""The options of exports are checked before the long work."""

import argparse
from pathlib import Path

import pytest

from pipeline.exports.options import add_export_options, check_export_options


def checked(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_export_options(parser)
    args = parser.parse_args(argv)
    check_export_options(args)
    return args


def test_defaults(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = checked()
    assert (args.export, args.export_dir, args.save_heatmaps) == (None, None, None)
    args = checked("--export", "coco", "voc")
    assert args.export == ["coco", "voc"] and args.export_dir == Path("exports")
    args = checked("--export", "yolo", "--export-dir", "a/b", "--save-heatmaps", ".")
    assert args.export_dir == Path("a/b") and args.save_heatmaps == Path(".")
    assert not list(tmp_path.iterdir())


def test_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(
        ValueError, match=r"--export-dir needs --export FORMAT \.\.\.; formats: coco"
    ):
        checked("--export-dir", "out")
    with pytest.raises(ValueError, match=r"--export-dir file cannot .* is not a folder"):
        checked("--export", "coco", "--export-dir", "file")
    with pytest.raises(ValueError, match="--save-heatmaps file/maps cannot be written"):
        checked("--save-heatmaps", "file/maps")
