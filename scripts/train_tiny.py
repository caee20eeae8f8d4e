"""Train the models of the `tiny` preset on rendered scenes.

    python scripts/train_tiny.py clip --output runs/clip --minutes 200 --threads 2
    python scripts/train_tiny.py clip --output runs/clip --export clip.safetensors
    python scripts/train_tiny.py sam2 --output runs/sam2 --minutes 75

The preset's LoftUp is trained by `scripts/train_loftup.py --recipe tiny`.
`python scripts/train_tiny.py MODEL --help` lists a training's options.
"""

import argparse
import importlib
import logging
import sys
from pathlib import Path

# Run as a file, Python looks for packages beside it, not in the repository's root.
ROOT = str(Path(__file__).resolve().parents[1])
if ROOT not in sys.path:
    sys.path.insert(0, ROOT)

TRAININGS = {
    "clip": "CLIP on images, captions and regions",
    "sam2": "SAM 2 on points, boxes and coarse masks",
}


def main(argv: list[str] | None = None) -> int:
    """Run one training; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="model", required=True, metavar="MODEL")
    for name, description in TRAININGS.items():
        command = commands.add_parser(
            name, help=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        # Import only the training that is asked for: each has libraries of its own.
        if name in argv[:1]:
            module = importlib.import_module(f"pipeline.training.{name}")
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    from pipeline.training.memory import return_freed_memory

    return_freed_memory()
    try:
        return args.run(args)
    except (ValueError, FileNotFoundError, FileExistsError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    raise SystemExit(main())
