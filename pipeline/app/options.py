"""Command-line options that the programs share."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.presets import PRESETS, Preset, get_preset
from models.protocols import get_protocol
from models.upsamplers.registry import UPSAMPLERS, load_own
from models.vocabulary import Vocabulary, parse_thresholds

from ..config import DEFAULT_UPSAMPLER, PipelineConfig
from ..files.atomic import check_replaceable, is_special
from ..limits import limits_of
from ..scene import SCENE as SCENE  # programs take these from here
from .parser import Parser as Parser
from .program import run_main as run_main

if TYPE_CHECKING:
    import numpy as np

    from models.upsamplers.base import Upsampler

logger = logging.getLogger(__name__)


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
        help=f"trained models: {', '.join(map(_told, PRESETS.values()))} (default: tiny for the "
        "bundled scene, else vit-b16)",
    )
    parser.add_argument("--checkpoint", type=Path, help="SAM 2 weights (default: the preset's)")
    parser.add_argument(
        "--model-cfg",
        help="SAM 2 configuration, as in the sam2 package (default: the preset's; "
        "sam2_hiera_l.yaml for vit-b16)",
    )
    parser.add_argument("--device", help="cuda, mps or cpu (default: the best available)")
    parser.add_argument("--verbose", action="store_true", help="log more; tracebacks of errors")


def _told(preset: Preset) -> str:
    """A preset's name, and what it is limited to."""
    return f"{preset.name} (knows {preset.knows})" if preset.knows else preset.name


def add_picture_options(parser: argparse.ArgumentParser) -> None:
    """--no-tags and --no-points."""
    parser.add_argument(
        "--no-tags", dest="tags", action="store_false", help="no class names on the masks"
    )
    parser.add_argument(
        "--no-points", dest="points", action="store_false", help="no prompt points on the masks"
    )


def add_upsampler_options(parser: argparse.ArgumentParser) -> None:
    """--upsampler, its short form --use-loftup, and the weights of those that are trained."""
    parser.add_argument(
        "--upsampler",
        metavar="NAME",
        help=f"from patches to pixels: {', '.join(UPSAMPLERS)}, or your own, "
        f"path/to/file.py:function (default: {DEFAULT_UPSAMPLER})",
    )
    parser.add_argument("--use-loftup", action="store_true", help="short for --upsampler loftup")
    add_weights_options(parser)


def add_weights_options(parser: argparse.ArgumentParser) -> None:
    """--NAME-model of every upsampler that is trained."""
    for name, row in UPSAMPLERS.items():
        if row.network:
            parser.add_argument(f"--{name}-model", help=row.weights_help)
    parser.add_argument(
        "--proxy-model", help="weights file of the second network (default: the published ones)"
    )
    parser.add_argument(
        "--proxy-upsampler-model",
        help="weights of --proxy-upsampler (default: those published for the second network)",
    )


def given_weights(args: argparse.Namespace, used: Collection[str]) -> dict[str, str | None]:
    """Upsampler → its weights, as the --NAME-model options say; also those of a second network.

    Raises:
        ValueError: weights of an upsampler that is none of `used`. Those of second networks are
            checked by `refuse_ignored`, or `refuse_proxy_weights`.
    """
    weights = {
        name: getattr(args, f"{name}_model") for name, row in UPSAMPLERS.items() if row.network
    }
    for name, given in weights.items():
        if given and name not in used:
            how = "--use-loftup" if name == "loftup" else f"--upsampler {name}"
            raise ValueError(f"--{name}-model needs {how}: without it, it would not be used")
    return weights | {"proxy": args.proxy_model, "proxy_upsampler": args.proxy_upsampler_model}


def own_or_named(text: str) -> str | Upsampler:
    """The upsampler that is typed: a name as it is, one's own loaded.

    Raises:
        ValueError, FileNotFoundError: see `load_own`.
    """
    return load_own(text)[1] if ".py:" in text else text


def choose_upsampler(args: argparse.Namespace) -> str | Upsampler:
    """What --upsampler, --use-loftup and the options about weights say together.

    Raises:
        ValueError, FileNotFoundError: they contradict each other, or name no upsampler.
    """
    name = args.upsampler or ("loftup" if args.use_loftup else DEFAULT_UPSAMPLER)
    if args.use_loftup and name != "loftup":
        raise ValueError(
            f"--use-loftup is short for --upsampler loftup and contradicts --upsampler {name}: "
            "give one of them"
        )
    given_weights(args, (name,))
    return own_or_named(name)


def add_config_options(
    parser: argparse.ArgumentParser,
    config: type,
    names: Collection[str] | None = None,
    title: str = "pipeline",
) -> None:
    """One option per field of a configuration that has a help text, with its default.

    Args:
        parser: gets them.
        config: dataclass of `models.settings.setting` fields.
        names: limits them; None takes all.
        title: of the group in the help.
    """
    group = parser.add_argument_group(title)
    for field in dataclasses.fields(config):
        text = field.metadata.get("help")
        if not text or (names is not None and field.name not in names):
            continue
        flags = ["--" + field.name.replace("_", "-")]
        flags += [alias] if (alias := field.metadata["alias"]) else []
        if isinstance(field.default, bool) or "bool" in str(field.type):
            shown = "on" if field.default else "off"
            shown = field.metadata["whose"] if field.default is None else shown
            option = group.add_argument(
                *flags, action=argparse.BooleanOptionalAction, default=field.default
            )
            option.help = f"{text} (default: {shown})"  # Python 3.10 adds a default if told before
            continue
        shown = field.metadata["whose"] if field.default is None else "%(default)s"
        group.add_argument(
            *flags, type=_kind(field), default=field.default, help=f"{text} (default: {shown})"
        )


def _kind(field: dataclasses.Field[Any]) -> Callable[[str], Any]:
    """How an option's value is read."""
    if (own := field.metadata.get("kind")) is None:
        numbers = field.default is None and "float" in str(field.type)
        return float if numbers else str if field.default is None else type(field.default)

    def read(text: str) -> Any:
        try:
            return own(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def config_from_args(args: argparse.Namespace, **changes: Any) -> PipelineConfig:
    """The configuration that the options describe."""
    names = {field.name for field in dataclasses.fields(PipelineConfig)}
    return PipelineConfig(**{k: v for k, v in vars(args).items() if k in names} | changes)


def choose_preset(args: argparse.Namespace) -> str:
    """--preset, or the shipped models for the bundled scene and the official ones otherwise."""
    if args.preset is not None:
        return args.preset
    return "tiny" if is_scene_path(args.image) else "vit-b16"


def is_scene_path(image: object) -> bool:
    """Whether --image, a path or a list of such, is the bundled scene alone."""
    if isinstance(image, list):
        return len(image) == 1 and is_scene_path(image[0])
    # Not Path.resolve: it raises RuntimeError at links in a circle.
    return os.path.realpath(str(image)) == str(SCENE.path)


def say_limits(args: argparse.Namespace, image: np.ndarray | None = None) -> None:
    """Warn where the models are not for the image (H, W, 3); None stands for many.

    Raises:
        ValueError: there is no such preset.
    """
    if limits := limits_of(get_preset(choose_preset(args)), image):
        logger.warning("%s", limits)


def read_vocabulary(args: argparse.Namespace) -> Vocabulary:
    """All words, with the defaults of the bundled scene and of the preset, and --threshold.

    Raises:
        ValueError, FileNotFoundError: see `Vocabulary.parse`; or there is no such preset.
    """
    words = SCENE.words if args.vocabulary is None else args.vocabulary
    if args.vocabulary is None and not is_scene_path(args.image):
        logger.warning(
            "no --vocabulary: looking for the bundled scene's words, %s", " ".join(SCENE.words)
        )
    background = args.background
    if background is None:
        protocol = get_preset(choose_preset(args)).protocol
        background = (get_protocol(protocol) if isinstance(protocol, str) else protocol).background
    thresholds = parse_thresholds(args.threshold)
    vocabulary = Vocabulary.parse(
        words, background, not_words=args.not_words, thresholds=thresholds
    )
    all_have = len(vocabulary.own_thresholds) == len(vocabulary) and not vocabulary.not_words
    if all_have and "min_confidence" in getattr(args, "given", ()):
        raise ValueError(
            "--min-confidence would not be used: every class has a --threshold of its own"
        )
    return vocabulary


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
