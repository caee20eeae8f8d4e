"""The options of exports, for any program that makes results."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..app.options import check_writable
from . import FORMATS


def add_export_options(parser: argparse.ArgumentParser) -> None:
    """--export, --export-dir and --save-heatmaps."""
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
        help="for --export: DIR/coco, DIR/yolo, ... (default: exports)",
    )
    parser.add_argument(
        "--save-heatmaps",
        type=Path,
        metavar="DIR",
        help="how probable each class is at every pixel: DIR/<image>/000_<class>.png, ...",
    )


def check_export_options(args: argparse.Namespace) -> None:
    """Fill in --export-dir, and refuse before the long work what could not be written after it.

    Raises:
        ValueError: --export-dir without --export; not a folder, or nothing can be written there.
    """
    if args.export_dir and not args.export:
        raise ValueError(f"--export-dir needs --export FORMAT ...; formats: {', '.join(FORMATS)}")
    if args.export and args.export_dir is None:
        args.export_dir = Path("exports")
    folders = {"--export-dir": args.export_dir, "--save-heatmaps": args.save_heatmaps}
    for option, path in folders.items():
        if path is not None:
            check_writable(option, path, path / "file")
