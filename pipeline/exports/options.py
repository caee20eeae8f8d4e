"""The options of exports, for any program that makes results."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ..app.ignored import flag
from ..app.options import check_writable
from . import FORMATS, HEATMAP_FORMATS, ExportSettings

# Options → the formats that read them.
_READERS = {
    "polygon_tolerance": ("yolo", "labelme"),
    "yolo_images": ("yolo",),
    "yolo_val": ("yolo",),
}


def add_export_options(parser: argparse.ArgumentParser) -> None:
    """--export, --save-heatmaps, --cutouts, and what their files are like."""
    parser.add_argument(
        "--export",
        nargs="+",
        choices=FORMATS,
        metavar="FORMAT",
        help="also write the masks for other tools: "
        + "; ".join(f"{name}, {row.meaning}" for name, row in FORMATS.items()),
    )
    parser.add_argument(
        "--export-dir",
        type=Path,
        metavar="DIR",
        help="for --export: DIR/coco, DIR/yolo, ...; what is there grows (default: exports)",
    )
    parser.add_argument(
        "--polygon-tolerance",
        type=float,
        metavar="PX",
        help="yolo and labelme: pixels that outlines may be off to have fewer vertices "
        "(default: 0, exact)",
    )
    parser.add_argument(
        "--yolo-images",
        choices=("copy", "link"),
        help="yolo: put the pictures beside the labels, so that a training can start",
    )
    parser.add_argument(
        "--yolo-val",
        type=float,
        metavar="SHARE",
        help="yolo: lists train.txt and val.txt, this share of the pictures in the latter",
    )
    parser.add_argument(
        "--save-heatmaps",
        type=Path,
        metavar="DIR",
        help="how probable each class is at every pixel: DIR/<image>/000_<class>.png, ...",
    )
    parser.add_argument(
        "--heatmap-format",
        choices=HEATMAP_FORMATS,
        help="; ".join(f"{name}, {meaning}" for name, meaning in HEATMAP_FORMATS.items())
        + " (default: png)",
    )
    parser.add_argument(
        "--cutouts",
        type=Path,
        metavar="DIR",
        help="every mask as a transparent PNG: DIR/<image>/000_<class>.png, ...",
    )


def check_export_options(args: argparse.Namespace) -> None:
    """Fill in --export-dir, --heatmap-format and `export_settings`.

    What could not be written after the long work is refused before it.

    Raises:
        ValueError: an option without the one it is for, or a value that makes no sense; not a
            folder, or nothing can be written there.
    """
    if args.export_dir and not args.export:
        raise ValueError(f"--export-dir needs --export FORMAT ...; formats: {', '.join(FORMATS)}")
    if args.export and args.export_dir is None:
        args.export_dir = Path("exports")
    settings = {name: value for name in _READERS if (value := getattr(args, name)) is not None}
    for name in settings:
        if not {*_READERS[name]} & {*(args.export or ())}:
            raise ValueError(f"{flag(name)} needs --export {' or '.join(_READERS[name])}")
    args.export_settings = ExportSettings(**settings)
    if args.heatmap_format and not args.save_heatmaps:
        raise ValueError("--heatmap-format needs --save-heatmaps DIR")
    args.heatmap_format = args.heatmap_format or "png"
    folders = {
        "--export-dir": args.export_dir,
        "--save-heatmaps": args.save_heatmaps,
        "--cutouts": args.cutouts,
    }
    if len(places := [os.path.realpath(p) for p in folders.values() if p]) > len({*places}):
        raise ValueError("--export-dir, --save-heatmaps and --cutouts need a folder each")
    for option, path in folders.items():
        if path is not None:
            check_writable(option, path, path / "file")
