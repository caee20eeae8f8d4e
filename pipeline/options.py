"""Command-line options that the programs share, and how a program reports bad input."""

from __future__ import annotations

import argparse
import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from models.presets import PRESETS

from .config import PipelineConfig


class BundledScene(NamedTuple):
    path: Path
    words: tuple[str, ...]


SCENE = BundledScene(
    path=Path(__file__).resolve().parents[1] / "examples" / "street_scene.jpg",
    words=("person", "car", "bicycle", "tree", "building"),
)


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """--image, --vocabulary, and which models run where."""
    parser.add_argument(
        "--image", type=Path, default=SCENE.path, help="image file (default: the bundled scene)"
    )
    parser.add_argument(
        "--vocabulary",
        nargs="+",
        metavar="WORD",
        help='class names; "sofa,couch" adds a synonym, @FILE reads one class per line '
        f"(default: the bundled scene's: {' '.join(SCENE.words)})",
    )
    parser.add_argument(
        "--background",
        nargs="*",
        metavar="WORD",
        help="words for everything else; none: every pixel takes a class (default: the preset's)",
    )
    parser.add_argument(
        "--preset",
        metavar="NAME",
        help=f"trained models: {', '.join(PRESETS)} (default: tiny for the bundled scene, "
        "else vit-b16)",
    )
    parser.add_argument("--checkpoint", type=Path, help="SAM 2 weights (default: the preset's)")
    parser.add_argument(
        "--model-cfg",
        help="SAM 2 configuration, as in the sam2 package (default: the preset's; "
        "sam2_hiera_l.yaml for vit-b16)",
    )
    parser.add_argument("--loftup-model", help="LoftUp name or weights file (default: preset's)")
    parser.add_argument("--device", help="cuda, mps or cpu (default: the best available)")
    parser.add_argument("--verbose", action="store_true", help="log more; tracebacks of errors")


_HELP = {
    "min_confidence": "least class probability of a prompt region",
    "min_region_size": "least region size, pixels",
    "iou_threshold": "masks of one class that overlap more are merged",
    "strategy": "where to click: pole, centroid, peak, multi",
    "points_per_region": "clicks per region of the multi strategy",
    "negative_points": "clicks per prompt on other classes",
    "prompt_box": "also give SAM 2 each region's box",
    "prompt_mask": "also give SAM 2 each region's mask",
    "attention": "CLIP's last block: csa, vanilla, maskclip",
    "text_space": "how LoftUp's output meets the words: restored, channel_norm",
    "whole_image": "upsample the whole image at once instead of window by window",
    "use_pamr": "refine the scores with PAMR",
    "min_score": "below this predicted IoU a mask falls back to its region",
    "min_agreement": "below this IoU with its region likewise",
}


def add_pipeline_options(parser: argparse.ArgumentParser) -> None:
    """One option per setting of `PipelineConfig`, with its default."""
    group = parser.add_argument_group("pipeline")
    for field in dataclasses.fields(PipelineConfig):
        if field.name not in _HELP:
            continue
        flag = "--" + field.name.replace("_", "-")
        text = _HELP[field.name]
        if isinstance(field.default, bool):
            group.add_argument(
                flag,
                action=argparse.BooleanOptionalAction,
                default=field.default,
                help=f"{text} (default: {'on' if field.default else 'off'})",
            )
        elif field.default is None:
            group.add_argument(flag, help=f"{text} (default: the preset's)")
        else:
            group.add_argument(
                flag,
                type=type(field.default),
                default=field.default,
                help=f"{text} (default: %(default)s)",
            )


def config_from_args(args: argparse.Namespace) -> PipelineConfig:
    """The configuration that the options describe."""
    names = {field.name for field in dataclasses.fields(PipelineConfig)}
    return PipelineConfig(**{k: v for k, v in vars(args).items() if k in names})


def choose_preset(args: argparse.Namespace) -> str:
    """--preset, or the shipped models for the bundled scene and the official ones otherwise."""
    if args.preset is not None:
        return args.preset
    return "tiny" if args.image == SCENE.path else "vit-b16"


def run_main(run: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Run a program: logs to stderr, bad input as one line and exit code 2."""
    logging.basicConfig(
        level=logging.INFO if args.verbose else logging.WARNING, format="%(levelname)s: %(message)s"
    )
    try:
        return run(args)
    except (ValueError, OSError) as error:
        if args.verbose:
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        logging.getLogger(__name__).error(" ".join(lines) or type(error).__name__)
        return 2
    except KeyboardInterrupt:
        logging.getLogger(__name__).error("interrupted")
        return 130
