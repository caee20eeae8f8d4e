"""Check a data set before a benchmark: counts, order of the classes, what is missing.

    python scripts/prepare_dataset.py --dataset cityscapes --root data/cityscapes
    python scripts/prepare_dataset.py --dataset context60 --root data/VOCdevkit/VOC2010

Label maps as they are downloaded (COCO's stuffthingmaps, Cityscapes' labelIds, Pascal Context's
MATLAB files) are also written as mmsegmentation and others read them; those that are there already
are compared with them. The exit status is 1 if something has to be mended.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if not __package__:  # run as a file: Python looks for packages beside it
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.app.options import Parser, run_main
from pipeline.datasets import DATASETS


def run(args: argparse.Namespace) -> int:
    from pipeline.datasets.prepare import prepare

    check = prepare(args.dataset, args.root, args.split, write=not args.check_only)
    for note in check.notes:
        print(note)
    for problem in check.problems:
        print(f"to mend: {problem}", file=sys.stderr)
    if not check.problems:
        print(f"{args.dataset} in {args.root} is complete")
    return 1 if check.problems else 0


def main(argv: list[str] | None = None) -> int:
    parser = Parser(description=__doc__)
    names = "; ".join(f"{name}: {row.meaning}" for name, row in DATASETS.items())
    parser.add_argument("--dataset", metavar="NAME", required=True, help=names)
    parser.add_argument("--root", type=Path, required=True, help="the data set's folder")
    parser.add_argument("--split", help="one of its lists (default: its val)")
    parser.add_argument("--check-only", action="store_true", help="write nothing")
    parser.add_argument("--verbose", action="store_true", help="log more; tracebacks of errors")
    return run_main(run, parser.parse_args(argv))


if __name__ == "__main__":
    raise SystemExit(main())
