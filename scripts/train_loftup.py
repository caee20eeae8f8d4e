"""Train LoftUp or NAF, the feature upsamplers, for a backbone of your choice.

Stage 1 learns to give every pixel of a mask that mask's mean feature. Stage 2 starts from its
result and learns from a teacher, a slow average of itself, that looks at enlarged crops.

    # DINOv2 on SA-1B (a folder of .jpg and .json files), as the paper does, on a GPU
    python scripts/train_loftup.py --stage 1 --backbone dinov2_vits14 \\
        --data /data/sa1b --steps 125000 --output runs/dino1
    python scripts/train_loftup.py --stage 2 --backbone dinov2_vits14 \\
        --data /data/sa1b --steps 125000 --init runs/dino1/best.safetensors --output runs/dino2

    # NAF for a convolutional network, on photographs with masks by people, or by scikit-image
    python scripts/train_loftup.py --recipe photographs --steps 2000 --output runs/naf \\
        --backbone timm:tf_efficientnet_lite0@16 --data BSDS/images --labels BSDS/segments
    python scripts/train_loftup.py --recipe photographs --steps 2000 --output runs/naf \\
        --backbone timm:tf_efficientnet_lite0@16 --data PHOTOGRAPHS --segmenter felzenszwalb

    # the shipped tiny preset, on rendered scenes, on a CPU
    python scripts/train_loftup.py --stage 1 --recipe tiny --minutes 60 --output runs/loftup
    python scripts/train_loftup.py --output runs/loftup --export models/tiny/loftup.safetensors

    # a CLIP of one's own, images with label PNGs, several GPUs (or: torchrun --nproc-per-node=N)
    accelerate launch scripts/train_loftup.py --stage 1 --steps 50000 \\
        --backbone open_clip:ViT-B-16 --checkpoint my_clip.pt --attention maskclip \\
        --data VOC2012/JPEGImages --labels VOC2012/SegmentationClass --output runs/mine

In --output: log.csv, validation.csv, curves.png, pictures/, settings.json, last.pt (to resume from)
and best.safetensors, the weights that validate best, under the official names: `load_loftup(path)`
or `load_naf` here, and their own code after --export FILE.bin, read them. Ctrl-C saves and stops;
--resume goes on. With --steps the resumed run is the one not stopped, bit for bit on a CPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import sys
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: Python looks for packages beside it
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from models.backbones.registry import backbone_names
from pipeline.app.options import Parser, run_main
from pipeline.training.loftup.config import RECIPES, SEGMENTERS, LoftUpConfig, get_recipe


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """All options; those of `LoftUpConfig` are there only if given."""
    parser = Parser(__doc__)
    add = parser.add_argument
    backbones = f"{', '.join(backbone_names())} (default: tiny)"
    data = "images with SA-1B's .json beside them, or 'rendered' scenes (default)"
    export = "train nothing: write best.safetensors of --output to FILE (.safetensors, .bin), fp16"
    add("--recipe", choices=tuple(RECIPES), default="paper", help="settings (default: paper)")
    add("--backbone", default="tiny", metavar="NAME", help=backbones)
    add("--attention", help="of CLIP's last block: csa, vanilla, maskclip (default: csa)")
    add("--checkpoint", type=Path, help="weights of the backbone (default: its published ones)")
    add("--random-weights", action="store_true", help="a backbone without weights, for a dry run")
    add("--data", default="rendered", metavar="FOLDER", help=data)
    add("--labels", type=Path, metavar="FOLDER", help="label PNGs of the images in --data instead")
    add("--segmenter", choices=SEGMENTERS, help="make the masks of the images in --data instead")
    add("--init", type=Path, metavar="FILE", help="LoftUp weights to start from; stage 2 needs it")
    add("--output", type=Path, default=Path("runs/loftup"), help="folder (default: %(default)s)")
    add("--steps", type=int, help="length of the run, or …")
    add("--minutes", type=float, help="… its time, of all parts together")
    add("--resume", action="store_true", help="continue from last.pt in --output")
    add("--device", help="cuda, mps or cpu (default: the best available)")
    add("--accelerate", action="store_true", help="not needed: launchers are recognised")
    add("--threads", type=int, metavar="N", help="CPU threads (default: torch's choice)")
    for flag, default, text in (
        ("--workers", 1, "threads that draw images"),
        ("--log-every", 20, "steps"),
        ("--validate-every", 200, "steps"),
        ("--validate-images", 40, "held-out images"),
        ("--picture-every", 0, "steps between pictures of the features, 0: none"),
    ):
        add(flag, type=int, default=default, metavar="N", help=f"{text} (default: %(default)s)")
    add("--tensorboard", action="store_true", help="log for TensorBoard as well")
    add("--export", type=Path, metavar="FILE", help=export)
    add("--verbose", action="store_true", help="log more; tracebacks of errors")
    add_settings(parser)
    return parser.parse_args(argv)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """One option per field of `LoftUpConfig`, which is there only if given."""
    group = parser.add_argument_group("settings of the training (defaults: the recipe's)")
    for field in dataclasses.fields(LoftUpConfig):
        flag, choices = "--" + field.name.replace("_", "-"), field.metadata.get("choices")
        shown = [f"{name} {getattr(recipe[1], field.name)}" for name, recipe in RECIPES.items()]
        options: dict[str, Any] = {"help": f"{field.metadata['help']} ({', '.join(shown)})"}
        if isinstance(field.default, bool):
            options["action"] = argparse.BooleanOptionalAction
        elif isinstance(field.default, tuple):
            options |= {"type": float, "nargs": 2, "metavar": ("LOW", "HIGH")}
        else:
            options |= {"type": type(field.default), "choices": choices}
            options |= {} if choices else {"metavar": "N"}
        group.add_argument(flag, default=argparse.SUPPRESS, **options)


def configure(args: argparse.Namespace) -> LoftUpConfig:
    """The recipe with the settings that were given."""
    given = chosen(args, LoftUpConfig)
    if "enlarge" in given:
        given["enlarge"] = tuple(given["enlarge"])
    return dataclasses.replace(get_recipe(args.recipe, given.get("stage", 1)), **given)


def chosen(args: argparse.Namespace, kind: type) -> dict[str, Any]:
    """The options that are fields of a dataclass."""
    names = {field.name for field in dataclasses.fields(kind)}
    return {name: value for name, value in vars(args).items() if name in names}


def check(args: argparse.Namespace, config: LoftUpConfig) -> None:
    """Refuse what does not go together; ValueError in one line."""
    if (args.steps is None) == (args.minutes is None):
        raise ValueError("say how long to train: --steps N or --minutes M (one of the two)")
    if (args.steps if args.minutes is None else args.minutes) <= 0:
        raise ValueError("--steps and --minutes must be above 0")
    if args.minutes is not None and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ValueError("several processes need --steps: they must stop at the same one")
    if config.stage == 2 and args.init is None:
        raise ValueError("stage 2 starts from stage 1: add --init FILE (its best.safetensors)")
    if args.labels is not None and args.data == "rendered":
        raise ValueError("--labels needs the folder of its images: add --data FOLDER")
    if args.segmenter is not None and (args.labels is not None or args.data == "rendered"):
        raise ValueError("--segmenter is for a folder without masks: add --data, drop --labels")
    if args.threads is not None and args.threads < 1:
        raise ValueError(f"--threads must be at least 1, got {args.threads}")
    for name in ("workers", "validate_images"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1")
    for name in ("log_every", "validate_every", "picture_every"):
        if getattr(args, name) < 0:
            raise ValueError(f"--{name.replace('_', '-')} must be 0 (off) or more")
    if (args.output / "last.pt").is_file() != args.resume:  # before the backbone is loaded
        if args.resume:
            raise ValueError(f"{args.output} holds no last.pt to resume: drop --resume")
        raise ValueError(f"{args.output} holds a run: add --resume, or choose another --output")


def run(args: argparse.Namespace) -> int:
    """Train, or export what is trained; returns the exit status."""
    from pipeline.training.loftup import train

    if args.export is not None:
        train.export_best(args.output, args.export)
        return 0
    config = configure(args)
    check(args, config)

    import torch

    from models.backbones.build import build_backbone
    from pipeline.evaluation.ranks import join_ranks
    from pipeline.training.loftup.folders import open_source

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    options = train.RunOptions(**chosen(args, train.RunOptions))
    with join_ranks(args.device) as ranks:
        backbone = build_backbone(
            args.backbone,
            attention=args.attention,
            checkpoint=args.checkpoint,
            random_weights=args.random_weights,
            device=ranks.device,
        )
        source = open_source(
            args.data,
            args.labels,
            args.validate_images,
            segmenter=args.segmenter,
            min_side=config.min_side,
        )
        train.train(config, options, backbone, source, ranks)
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the program; returns the exit status."""
    args = parse_args(argv)
    # A run of hours tells what it measures, and which images it leaves out.
    logging.getLogger("pipeline.training").setLevel(logging.INFO)
    return run_main(run, args)


if __name__ == "__main__":
    raise SystemExit(main())
