"""Render a small data set in PASCAL VOC's layout, to try benchmarks without VOC's photographs.

    python scripts/make_sample_voc.py --output runs/rendered_voc --images 200 --seed 7

The folder then serves as a VOC root with the split `val`. Interrupted, the same command goes on.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if not __package__:  # run as a file: Python looks for packages beside it
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.app.options import Parser, run_main


def run(args: argparse.Namespace) -> int:
    from pipeline.datasets.rendered_voc import render_voc

    render_voc(args.output, images=args.images, seed=args.seed, varied=args.varied)
    print(f"{args.output}: {args.images} rendered images, split val")
    return 0


def main(argv: list[str] | None = None) -> int:
    parser = Parser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--images", type=int, default=200, help="number of images (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=7, help="another seed, other images (default: %(default)s)"
    )
    parser.add_argument(
        "--varied", action="store_true", help="with shadows, occluders and recoloured things"
    )
    parser.add_argument("--verbose", action="store_true", help="log more; tracebacks of errors")
    return run_main(run, parser.parse_args(argv))


if __name__ == "__main__":
    raise SystemExit(main())
