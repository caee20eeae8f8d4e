"""Train LoftUp, the feature upsampler, for a backbone of your choice.

Stage 1 learns to give every pixel of a mask that mask's mean feature. Stage 2 starts from its
result and learns from a teacher, a slow average of itself, that looks at enlarged crops.

    # DINOv2 on SA-1B (a folder of .jpg and .json files), as the paper does, on a GPU
    python scripts/train_loftup.py --stage 1 --backbone timm:vit_small_patch14_dinov2.lvd142m \\
        --data /data/sa1b --steps 125000 --output runs/dino1
    python scripts/train_loftup.py --stage 2 --backbone timm:vit_small_patch14_dinov2.lvd142m \\
        --data /data/sa1b --steps 125000 --init runs/dino1/best.safetensors --output runs/dino2

    # the shipped tiny preset, on rendered scenes, on a CPU
    python scripts/train_loftup.py --stage 1 --recipe tiny --minutes 60 --output runs/loftup
    python scripts/train_loftup.py --output runs/loftup --export models/tiny/loftup.safetensors

    # a CLIP of one's own, images with label PNGs, several GPUs
    accelerate launch scripts/train_loftup.py --accelerate --stage 1 --steps 50000 \\
        --backbone open_clip:ViT-B-16 --checkpoint my_clip.pt --attention maskclip \\
        --data VOC2012/JPEGImages --labels VOC2012/SegmentationClass --output runs/mine

In --output: log.csv, validation.csv, curves.png, pictures/, settings.json, last.pt (to resume from)
and best.safetensors, the weights that validate best, under the official names: `load_loftup(path)`
here, and LoftUp's own code after --export FILE.bin, read them. Ctrl-C saves and stops; --resume
goes on. With --steps the resumed run is the one that was not stopped, bit for bit on a CPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from pathlib import Path

if not __package__:  # run as a file: Python looks for packages beside it
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.app.options import Parser, run_main
from pipeline.training.loftup.config import RECIPES, LoftUpConfig, get_recipe


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """All options; those of `LoftUpConfig` are there only if given."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--recipe", choices=tuple(RECIPES), default="paper", help="settings (default: paper)")
    add(
        "--backbone",
        default="tiny",
        metavar="NAME",
        help="tiny, vit-b16, timm:NAME, open_clip:NAME or open_clip:FOLDER (default: tiny)",
    )
    add("--attention", help="of CLIP's last block: csa, vanilla, maskclip (default: csa)")
    add("--checkpoint", type=Path, help="weights of the backbone (default: its published ones)")
    add("--random-weights", action="store_true", help="a backbone without weights, for a dry run")
    add(
        "--data",
        default="rendered",
        metavar="FOLDER",
        help="images with SA-1B's .json beside them, or 'rendered' scenes (default)",
    )
    add("--labels", type=Path, metavar="FOLDER", help="label PNGs of the images in --data instead")
    add("--init", type=Path, metavar="FILE", help="LoftUp weights to start from; stage 2 needs it")
    add("--output", type=Path, default=Path("runs/loftup"), help="folder (default: %(default)s)")
    add("--steps", type=int, help="length of the run, or …")
    add("--minutes", type=float, help="… its time, of all parts together")
    add("--resume", action="store_true", help="continue from last.pt in --output")
    add("--device", help="cuda, mps or cpu (default: the best available)")
    add("--accelerate", action="store_true", help="several processes, see above")
    add("--threads", type=int, metavar="N", help="CPU threads (default: torch's choice)")
    add("--workers", type=int, default=1, metavar="N", help="threads that draw images (default: 1)")
    add("--log-every", type=int, default=20, metavar="N", help="steps (default: %(default)s)")
    add("--validate-every", type=int, default=200, metavar="N", help="steps (default: %(default)s)")
    add(
        "--validate-images",
        type=int,
        default=40,
        metavar="N",
        help="held-out images (default: %(default)s)",
    )
    add(
        "--picture-every",
        type=int,
        default=0,
        metavar="N",
        help="steps between pictures of the features (default: none)",
    )
    add("--tensorboard", action="store_true", help="log for TensorBoard as well")
    add(
        "--export",
        type=Path,
        metavar="FILE",
        help="train nothing: write best.safetensors of --output to FILE (.safetensors, .bin), "
        "in half precision",
    )
    add("--verbose", action="store_true", help="log more; tracebacks of errors")  # fmt: skip
    group = parser.add_argument_group("settings of the training (defaults: the recipe's)")
    for field in dataclasses.fields(LoftUpConfig):
        add_setting(group, field)
    return parser.parse_args(argv)


def add_setting(group: argparse._ArgumentGroup, field: dataclasses.Field) -> None:
    """The option of one field of `LoftUpConfig`."""
    flag = "--" + field.name.replace("_", "-")
    shown = [f"{name} {getattr(recipe[1], field.name)}" for name, recipe in RECIPES.items()]
    text = f"{field.metadata['help']} ({', '.join(shown)})"
    if isinstance(field.default, bool):
        action = argparse.BooleanOptionalAction
        group.add_argument(flag, action=action, default=argparse.SUPPRESS, help=text)
        return
    many = isinstance(field.default, tuple)
    group.add_argument(
        flag,
        type=type(field.default[0] if many else field.default),
        nargs=len(field.default) if many else None,
        choices=field.metadata.get("choices"),
        metavar=None if "choices" in field.metadata else ("LOW", "HIGH") if many else "N",
        default=argparse.SUPPRESS,
        help=text,
    )


def configure(args: argparse.Namespace) -> LoftUpConfig:
    """The recipe with the settings that were given."""
    names = [field.name for field in dataclasses.fields(LoftUpConfig)]
    given = {name: getattr(args, name) for name in names if hasattr(args, name)}
    if "enlarge" in given:
        given["enlarge"] = tuple(given["enlarge"])
    return dataclasses.replace(get_recipe(args.recipe, given.get("stage", 1)), **given)


def check(args: argparse.Namespace, config: LoftUpConfig) -> None:
    """Refuse what does not go together; ValueError in one line."""
    if (args.steps is None) == (args.minutes is None):
        raise ValueError("say how long to train: --steps N or --minutes M (one of the two)")
    if (args.steps if args.minutes is None else args.minutes) <= 0:
        raise ValueError("--steps and --minutes must be above 0")
    if args.accelerate and args.minutes is not None:
        raise ValueError("--accelerate needs --steps: processes must stop at the same one")
    if config.stage == 2 and args.init is None:
        raise ValueError("stage 2 starts from stage 1: add --init FILE (its best.safetensors)")
    if args.labels is not None and args.data == "rendered":
        raise ValueError("--labels needs the folder of its images: add --data FOLDER")
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
    from pipeline.training.loftup.folders import open_source
    from pipeline.training.loftup.processes import Accelerated, Processes

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    processes = (Accelerated if args.accelerate else Processes)(args.device)
    backbone = build_backbone(
        args.backbone,
        attention=args.attention,
        checkpoint=args.checkpoint,
        random_weights=args.random_weights,
        device=processes.device,
    )
    source = open_source(args.data, args.labels, args.validate_images)
    names = {field.name for field in dataclasses.fields(train.RunOptions)}
    options = train.RunOptions(**{k: v for k, v in vars(args).items() if k in names})
    train.train(config, options, backbone, source, processes)
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the program; returns the exit status."""
    args = parse_args(argv)
    # A run of hours tells what it measures, and which images it leaves out.
    logging.getLogger("pipeline.training").setLevel(logging.INFO)
    return run_main(run, args)


if __name__ == "__main__":
    raise SystemExit(main())
