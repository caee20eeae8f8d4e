"""Command-line options that the programs share."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple, NoReturn

from models.presets import (
    ANYUPS,
    DEFAULT_ANYUP,
    PRESETS,
    get_preset,
)
from models.protocols import get_protocol
from models.vocabulary import Vocabulary, parse_thresholds

from ..config import DEFAULT_UPSAMPLER, PipelineConfig
from ..files.atomic import check_replaceable, is_special
from .program import run_main as run_main  # programs take it from here


class BundledScene(NamedTuple):
    path: Path
    words: tuple[str, ...]


SCENE = BundledScene(
    path=Path(__file__).resolve().parents[2] / "examples" / "street_scene.jpg",
    words=("person", "car", "bicycle", "tree", "building"),
)


class Parser(argparse.ArgumentParser):
    """Reports bad options as the programs report all bad input: one line, exit code 2."""

    def __init__(self, description: str | None) -> None:
        super().__init__(
            description=description, formatter_class=argparse.RawDescriptionHelpFormatter
        )

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {' '.join(message.split())}; see --help\n")


def add_model_options(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """--image (with `several`, a list of strings), --vocabulary, and which models run where."""
    if several:
        parser.add_argument(
            "--image",
            nargs="+",
            metavar="IMAGE",
            default=[str(SCENE.path)],
            help="image file, or several, or a folder, or @FILE with one path per line "
            "(default: the bundled scene)",
        )
    else:
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
        "--not-words",
        nargs="+",
        metavar="WORD",
        default=[],
        help="what is not wanted: it competes like a class and is left out of all results",
    )
    parser.add_argument(
        "--threshold",
        nargs="+",
        metavar="CLASS=SHARE",
        default=[],
        help="classes with a --min-confidence of their own: person=0.6 car=0.3",
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


def add_upsampler_options(parser: argparse.ArgumentParser) -> None:
    """--upsampler, its short form --use-loftup, and AnyUp's weights."""
    parser.add_argument(
        "--upsampler",
        metavar="NAME",
        help="from patches to pixels: none, bilinear, bicubic, jbu, guided, loftup, anyup "
        f"(default: {DEFAULT_UPSAMPLER})",
    )
    parser.add_argument("--use-loftup", action="store_true", help="short for --upsampler loftup")
    parser.add_argument(
        "--anyup-model",
        help=f"AnyUp name ({', '.join(ANYUPS)}), weights file or address "
        f"(default: {DEFAULT_ANYUP})",
    )


def choose_upsampler(args: argparse.Namespace) -> str:
    """What --upsampler, --use-loftup and the options about weights say together.

    Raises:
        ValueError: they contradict each other.
    """
    name = args.upsampler or ("loftup" if args.use_loftup else DEFAULT_UPSAMPLER)
    if args.use_loftup and name != "loftup":
        raise ValueError(
            f"--use-loftup is short for --upsampler loftup and contradicts --upsampler {name}: "
            "give one of them"
        )
    if args.loftup_model and name != "loftup":
        raise ValueError("--loftup-model needs --use-loftup: without it no LoftUp runs")
    if args.anyup_model and name != "anyup":
        raise ValueError("--anyup-model needs --upsampler anyup: without it no AnyUp runs")
    return name


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
    "upsampled": "what is enlarged: features, scores, probabilities",
    "text_space": "how LoftUp's output meets the words: restored, channel_norm",
    "loftup_share": "weight of LoftUp's scores against bilinear ones, 1 is LoftUp alone",
    "whole_image": "upsample the whole image at once instead of window by window",
    "use_pamr": "refine the scores with PAMR",
    "min_score": "below this predicted IoU a mask falls back to its region",
    "min_agreement": "below this IoU with its region likewise",
    "precision": "of the networks' products: float32, or bfloat16 where the device gains by it",
}


def add_pipeline_options(
    parser: argparse.ArgumentParser, names: Collection[str] = tuple(_HELP)
) -> None:
    """One option per setting of `PipelineConfig`, with its default; `names` limits them."""
    group = parser.add_argument_group("pipeline")
    for field in dataclasses.fields(PipelineConfig):
        if field.name not in names:
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
            kind = float if "float" in field.type else str
            whose = "the upsampler's" if field.name == "upsampled" else "the preset's"
            group.add_argument(flag, type=kind, help=f"{text} (default: {whose})")
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
    # Not Path.resolve: it raises RuntimeError at links in a circle.
    return "tiny" if os.path.realpath(args.image) == str(SCENE.path) else "vit-b16"


def read_vocabulary(args: argparse.Namespace) -> Vocabulary:
    """All words, with the defaults of the bundled scene and of the preset, and --threshold.

    Raises:
        ValueError, FileNotFoundError: see `Vocabulary.parse`; or there is no such preset.
    """
    words = SCENE.words if args.vocabulary is None else args.vocabulary
    background = args.background
    if background is None:
        protocol = get_preset(choose_preset(args)).protocol
        background = (get_protocol(protocol) if isinstance(protocol, str) else protocol).background
    thresholds = parse_thresholds(args.threshold)
    return Vocabulary.parse(words, background, not_words=args.not_words, thresholds=thresholds)


def check_outputs(paths: dict[str, Path | None], image: Path) -> None:
    """Refuse before the long work what could not be written after it.

    Args:
        paths: option → file to write; None is not asked for.
        image: what is read.

    Raises:
        ValueError: a folder, a place where nothing can be written, or one file for two things.
    """
    taken = {os.path.realpath(image): "--image"}
    for option, path in paths.items():
        if path is None:
            continue
        if path.is_dir():
            raise ValueError(f"{option} {path} is a folder; give the name of a file")
        if (other := taken.setdefault(os.path.realpath(path), option)) != option:
            raise ValueError(f"{option} {path} is also {other}; give another name")
        check_writable(option, path, path)


def check_writable(option: str, given: Path, file: Path) -> None:
    """Refuse what was `given` for `option` if `file` cannot be made, with the folders it needs.

    Raises:
        ValueError: a file where a folder is needed; no permission.
    """
    try:
        check_replaceable(file)
    except PermissionError as error:
        raise ValueError(f"{option} {given} cannot be written: {error.strerror}") from error
    if is_special(file):
        return
    folder = next(parent for parent in file.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise ValueError(f"{option} {given} cannot be written: {folder} is not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"{option} {given} cannot be written: no permission for {folder}")
