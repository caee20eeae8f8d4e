"""Train the models of the `tiny` preset on rendered scenes: one of them, or all from nothing.

    python scripts/train_tiny.py all  --output runs/tiny --threads 2
    python scripts/train_tiny.py clip --output runs/clip --steps 11000 --threads 2
    python scripts/train_tiny.py clip --output runs/clip --export clip.safetensors
    python scripts/train_tiny.py sam2 --output runs/sam2 --minutes 75

`all` trains CLIP, LoftUp on its features (both stages, by scripts/train_loftup.py) and SAM 2, and
leaves the weights in OUTPUT/models, named as in models/tiny. Stopped or killed, the same command
goes on where it was. `python scripts/train_tiny.py MODEL --help` lists a training's options.
"""

import argparse
import importlib
import logging
import os
import sys
from pathlib import Path

if not __package__:  # run as a file: Python looks for packages beside it
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.app.parser import add_version

logger = logging.getLogger("scripts.train_tiny")

TRAININGS = {
    "clip": "CLIP on images, captions and regions",
    "sam2": "SAM 2 on points, boxes and coarse masks",
}
STEPS = {"clip": 11_000, "loftup1": 3_000, "loftup2": 150, "sam2": 3_000}
FILES = {
    "clip": "clip/open_clip_model.safetensors",
    "loftup2": "loftup.safetensors",
    "sam2": "sam2.safetensors",
}
# For CLIP glibc gives freed blocks back at once: its tensors differ in size from step to step, and
# the holes between them grew to ten times what it used. Elsewhere that costs a third of the time.
MALLOC = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "1000000",
    "MALLOC_TRIM_THRESHOLD_": "1000000",
}


def set_allocator(part: str) -> None:
    """Start this program anew where `part` needs other settings of glibc: it reads them once."""
    ours = MALLOC.items() <= os.environ.items()
    if __name__ == "__main__" and sys.platform == "linux" and ours != (part == "clip"):
        others = {k: v for k, v in os.environ.items() if k not in MALLOC}
        settings = MALLOC if part == "clip" else {}
        os.execve(sys.executable, sys.orig_argv, others | settings)


def add_all_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, default=Path("runs/tiny"), help="folder of all runs")
    parser.add_argument("--share", type=float, default=1.0, help="part of the steps, for a trial")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--device", help="cuda, mps or cpu (default: the best available)")
    parser.set_defaults(run=train_all)


def commands(args: argparse.Namespace) -> dict[str, list[str]]:
    """The command line of every part, in order, without its length."""
    common = ["--threads", str(args.threads)]
    common += ["--device", args.device] if args.device else []
    clip = str(args.output / "models" / FILES["clip"])
    loftup = ["--recipe", "tiny", "--backbone", "tiny", "--checkpoint", clip, *common]
    loftup += ["--picture-every", "1000", "--validate-every", "500"]
    first = str(args.output / "loftup1" / "best.safetensors")
    return {
        "clip": ["clip", *common],
        "loftup1": ["--stage", "1", *loftup],
        "loftup2": ["--stage", "2", "--init", first, *loftup],
        "sam2": ["sam2", *common],
    }


def train_all(args: argparse.Namespace) -> int:
    """Every part that is not yet done; 0, or the status of the part that failed or was stopped."""
    from pipeline.training.loop import checkpoint_step
    from scripts import train_loftup

    if not 0 < args.share <= 1:
        raise ValueError(f"--share must be above 0 and at most 1, got {args.share}")
    for part, argv in commands(args).items():
        program = train_loftup.main if part.startswith("loftup") else main
        folder, steps = args.output / part, max(1, round(STEPS[part] * args.share))
        here, resume = ["--output", str(folder)], (folder / "last.pt").is_file()
        if checkpoint_step(folder) < steps:
            set_allocator(part)
            logger.info("%s: %d steps in %s", part, steps, folder)
            status = program([*argv, *here, "--steps", str(steps), *["--resume"] * resume])
            if status:
                return status
            if checkpoint_step(folder) < steps:
                logger.warning("stopped; the same command goes on")
                return 130  # as after Ctrl-C
        file = args.output / "models" / FILES.get(part, "")
        if part in FILES and not file.is_file():
            kind = [] if part.startswith("loftup") else [part]
            status = program([*kind, *here, "--export", str(file)])
            if status:
                return status
    logger.info("done: the weights are in %s", args.output / "models")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run one training; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_version(parser)
    models = parser.add_subparsers(dest="model", required=True, metavar="MODEL")
    defaults = argparse.ArgumentDefaultsHelpFormatter
    add_all_arguments(models.add_parser("all", help="all, one by one", formatter_class=defaults))
    for name, description in TRAININGS.items():
        command = models.add_parser(name, help=description, formatter_class=defaults)
        # Import only the training that is asked for: each has libraries of its own.
        if name in argv[:1]:
            module = importlib.import_module(f"pipeline.training.{name}.train")
            module.add_arguments(command)
            command.set_defaults(run=module.run)
            set_allocator(name)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    try:
        return args.run(args)
    except (ValueError, FileNotFoundError, FileExistsError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    raise SystemExit(main())
