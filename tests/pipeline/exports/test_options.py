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
    for argv, message in (
        ("--save-heatmaps file/maps", "--save-heatmaps file/maps cannot be written"),
        ("--cutouts file/cut", "--cutouts file/cut cannot be written"),
        ("--save-heatmaps a --cutouts b/../a", "--save-heatmaps and --cutouts need a folder each"),
        ("--heatmap-format npy", "--heatmap-format needs --save-heatmaps DIR"),
        ("--export coco --polygon-tolerance 1", "--polygon-tolerance needs --export yolo or label"),
        ("--yolo-images copy", "--yolo-images needs --export yolo"),
        ("--export yolo --yolo-val 0.2", "--yolo-val lists pictures: add --yolo-images copy or"),
        ("--export yolo --yolo-images link --yolo-val 20", "share between 0 and 1 .*, got 20.0"),
        ("--export yolo --polygon-tolerance nan", "must be 0 pixels or more, got nan"),
    ):
        with pytest.raises(ValueError, match=message):
            checked(*argv.split())
