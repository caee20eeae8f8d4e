"""What does upsampling buy? Arms of the pipeline on PASCAL VOC, or on rendered scenes.

    python benchmarks/voc.py                       # offline: rendered scenes, shipped tiny models
    python benchmarks/voc.py --root VOCdevkit/VOC2012 --protocol sclip-voc21 \\
        --arms bilinear loftup loftup+sam2
    torchrun --nproc-per-node=2 benchmarks/voc.py  # the same results from several processes

An arm is an upsampler and modifiers joined by "+", see below. Predictions are written first and
scored from their files: an interrupted run goes on where it stopped. It is segmentation.py with
`--dataset voc21`; other data sets are there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if not __package__:  # run as a file: Python looks for packages beside it
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.segmentation import ARMS as ARMS
from benchmarks.segmentation import ROOT, SCENES, build_parser, run
from models.protocols import PROTOCOLS, class_names
from pipeline.app.options import run_main


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = build_parser(__doc__)
    voc = {*class_names("voc21")}
    names = ", ".join(n for n, p in PROTOCOLS.items() if p.class_names and {*p.class_names} <= voc)
    add = parser.add_argument
    add("--root", type=Path, help="VOC2012's folder (default: rendered scenes of its layout)")
    add("--split", default="val", help="list in ImageSets/Segmentation, or a file of ids (val)")
    add("--protocol", help=f"{names} (default: sclip-voc21; rendered-voc without --root)")
    add("--output", type=Path, help="results folder (default: outputs/voc/PRESET_PROTOCOL_SPLIT)")
    args = parser.parse_args(argv)
    preset = args.preset or ("vit-b16" if args.root else "tiny")
    protocol = args.protocol or ("sclip-voc21" if args.root else "rendered-voc")
    if args.output is None:
        args.output = ROOT / "outputs" / "voc" / f"{preset}_{protocol}_{Path(args.split).stem}"
    args.dataset, args.suite, args.scenes = "voc21", None, SCENES
    return args


def main(argv: list[str] | None = None) -> int:
    return run_main(run, parse(argv))


if __name__ == "__main__":
    raise SystemExit(main())
