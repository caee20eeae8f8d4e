"""The upsamplers by name: a row each. Everything else about them derives from these rows, the
command line and its help, arms of benchmarks, checks, what is loaded and what is recorded.

Nothing heavy is imported before an upsampler is built, so programs can list them at once.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..places import load_place
from ..presets import ANYUPS, DEFAULT_ANYUP, DEFAULT_NAF, LOFTUPS, NAFS, Preset, loftup_for

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..backbones.base import Backbone
    from .base import Upsampler

UPSAMPLED = ("features", "scores", "probabilities")  # what can be upsampled
TEXT_SPACES = ("restored", "channel_norm")
Weights = str | os.PathLike


@dataclass(frozen=True, kw_only=True, slots=True)
class UpsamplerRow:
    """One upsampler. Places are "module:name", imported when it is built.

    Attributes:
        meaning: what it does, for tables and help.
        upsampled: what it can upsample, of `UPSAMPLED`; the first unless told otherwise.
        build: place of its class, made of `given`; where it is trained, of its network, the
            text_space and the dtype of its products.
        given: see `build`.
        network: place of what loads its trained network by name or file; "" where it has none.
        published: its weights that can be fetched, by name, for all backbones together.
        default: of these; "" where the preset says it.
        weights_help: of its option --NAME-model.
        scales_colours: it takes colours of any scale and scales them itself: it is given the
            normalised image, as undoing that would round.
    """

    meaning: str
    upsampled: tuple[str, ...] = ("scores", "features", "probabilities")
    build: str = "models.upsamplers.base:Resize"
    given: tuple[Any, ...] = ()
    network: str = ""
    published: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    default: str = ""
    weights_help: str = ""
    scales_colours: bool = False

    def load(self, weights: Weights) -> nn.Module:
        """Its trained network, from a name or a file."""
        return load_place(self.network)(weights)

    def make(self, network: nn.Module | None, text_space: str, dtype: torch.dtype) -> Upsampler:
        """The upsampler."""
        given = (network, text_space, dtype) if self.network else self.given
        return load_place(self.build)(*given)


UPSAMPLERS: dict[str, UpsamplerRow] = {
    "none": UpsamplerRow(
        meaning="every pixel takes the scores of its patch", given=("nearest-exact",)
    ),
    "bilinear": UpsamplerRow(
        meaning="word scores upsampled bilinearly, as published SCLIP", given=("bilinear",)
    ),
    "bicubic": UpsamplerRow(meaning="word scores upsampled bicubically", given=("bicubic",)),
    "jbu": UpsamplerRow(
        meaning="word scores upsampled by joint bilateral upsampling",
        build="models.upsamplers.joint_bilateral:JointBilateral",
    ),
    "jbu_wide": UpsamplerRow(
        meaning="the same, a patch reaching half as far again: better on drawings",
        build="models.upsamplers.joint_bilateral:JointBilateral",
        given=(0.75,),  # patches
    ),
    "segments": UpsamplerRow(
        meaning="word scores by joint bilateral upsampling, averaged over segments of the image",
        build="models.upsamplers.segment_means:SegmentMeans",
    ),
    "guided": UpsamplerRow(
        meaning="word scores upsampled bilinearly, then by the guided filter",
        build="models.upsamplers.guided_filter:GuidedFilter",
    ),
    "loftup": UpsamplerRow(
        meaning="features upsampled by LoftUp, then scored",
        upsampled=("features",),
        build="models.upsamplers.trained:LoftUpUpsampler",
        network="models.weights:load_loftup",
        published=LOFTUPS,
        weights_help="LoftUp name or weights file (default: the preset's)",
        scales_colours=True,
    ),
    "anyup": UpsamplerRow(
        meaning="features upsampled by AnyUp, then scored",
        upsampled=("features", "scores", "probabilities"),  # as published; scores are cheaper
        build="models.upsamplers.trained:AnyUpUpsampler",
        network="models.weights:load_anyup",
        published=ANYUPS,
        default=DEFAULT_ANYUP,
        weights_help=f"AnyUp name ({', '.join(ANYUPS)}), weights file or address "
        f"(default: {DEFAULT_ANYUP})",
    ),
    "naf": UpsamplerRow(
        meaning="features upsampled by NAF, then scored",
        upsampled=("features",),  # its heads mix by different weights
        build="models.upsamplers.trained:NAFUpsampler",
        network="models.weights:load_naf",
        published=NAFS,
        default=DEFAULT_NAF,
        weights_help=f"NAF name ({', '.join(NAFS)}), weights file or address "
        f"(default: {DEFAULT_NAF})",
    ),
}


def load_network(name: str, weights: Weights | None, preset: Preset) -> nn.Module:
    """The trained network of an upsampler for a preset's features.

    Args:
        name: key of `UPSAMPLERS`.
        weights: name or file; None takes the preset's or the default.
        preset: whose features it is to upsample.

    Raises:
        ValueError: weights that are for other features; the message lists those that fit.
        WeightsNotFoundError, WeightsError: see `models.weight_files`.
    """
    row = UPSAMPLERS[name]
    weights = str(weights or row.default or getattr(preset, name))
    _check_kind(row, weights, preset.clip.features)
    return row.load(weights)


def _check_kind(row: UpsamplerRow, weights: str, features: str) -> None:
    """Refuse a name, not a file, for other features before it is fetched."""
    is_file = os.path.splitext(weights)[1] or os.path.exists(weights)
    if row.published is LOFTUPS and (weights in LOFTUPS or not is_file):
        loftup_for(features, weights)


def upsampler_for(
    name: str, backbone: Backbone, weights: Weights | None, device: torch.device
) -> tuple[Upsampler, nn.Module | None]:
    """An upsampler for a network's features, in their own space: cells are compared with cells.

    Args:
        name: key of `UPSAMPLERS`.
        backbone: makes the features.
        weights: name or file; None takes those that were published for the features.
        device: where its network goes.

    Returns:
        It, and its trained network, if it has one.

    Raises:
        ValueError: weights for other features, or none are published for these.
        WeightsNotFoundError, WeightsError: see `models.weight_files`.
    """
    import torch

    row, kind = get_row(name), backbone.kind or backbone.name
    if not row.network:
        return row.make(None, "", torch.float32), None
    fitting = (key for key, loftup in LOFTUPS.items() if loftup.features == kind)
    chosen = str(weights or row.default or next(fitting, ""))
    if not chosen:
        raise ValueError(
            f"no {name} is published for {kind} features: give its weights, or take another "
            "proxy_upsampler"
        )
    network = _load_for(row, chosen, backbone).to(device)
    return row.make(network, "channel_norm", torch.float32), network


def _load_for(row: UpsamplerRow, weights: Weights, backbone: Backbone | None) -> nn.Module:
    """The trained network, checked against the backbone where one is told."""
    if backbone is None:
        return row.load(weights)
    _check_kind(row, str(weights), backbone.kind or backbone.name)
    network = row.load(weights)
    check_width(str(weights), network, backbone.dim, backbone.name)
    return network


def check_width(name: str, network: nn.Module, dim: int, whose: str) -> None:
    """Refuse a trained network for features of another width than `dim`.

    Args:
        name: of the upsampler or its weights, for the message.
        network: has an attribute `dim` if it fits one width only.
        dim: C of the features.
        whose: they are, for the message.

    Raises:
        ValueError: it is for another.
    """
    if (trained := getattr(network, "dim", dim)) != dim:
        raise ValueError(
            f"{name} upsamples {trained} channels, the features of {whose} have {dim}: give a "
            "checkpoint trained for them"
        )


def get_row(name: str) -> UpsamplerRow:
    """The row called `name`.

    Raises:
        ValueError: no such upsampler; the message lists those there are.
    """
    if name not in UPSAMPLERS:
        raise ValueError(f"unknown upsampler {name!r}; valid: {', '.join(UPSAMPLERS)}")
    return UPSAMPLERS[name]


def upsampler_name(upsampler: object) -> str:
    """What to call it in results and messages."""
    if isinstance(upsampler, str):
        return upsampler
    name = getattr(upsampler, "name", None) or getattr(upsampler, "__name__", None)
    return name or type(upsampler).__name__


def upsampled_by(upsampler: str | Upsampler | Callable) -> tuple[str, ...]:
    """What an upsampler can upsample, the first unless told otherwise."""
    if isinstance(upsampler, str):
        return get_row(upsampler).upsampled
    from .base import LinearUpsampler, OwnUpsampler, Upsampler

    own = upsampler.own if isinstance(upsampler, OwnUpsampler) else upsampler
    first = own.upsampled if isinstance(own, Upsampler) else "features"
    others = UPSAMPLED if isinstance(own, LinearUpsampler) else ("features",)
    return tuple(dict.fromkeys((first, *others)))


def check_upsampled(upsampler: str | Upsampler | Callable, upsampled: str | None) -> None:
    """Refuse what an upsampler cannot upsample; None, its own choice, is always right.

    Raises:
        ValueError: that, or an unknown name.
    """
    able = upsampled_by(upsampler)
    if upsampled is None or upsampled in able:
        return
    if upsampled not in UPSAMPLED:
        raise ValueError(f"unknown upsampled {upsampled!r}; valid: {', '.join(UPSAMPLED)}")
    raise ValueError(
        f"upsampler {upsampler_name(upsampler)} upsamples {' or '.join(able)}, not {upsampled}: "
        f"take upsampled {able[0]!r} or another upsampler"
    )


def load_upsampler(
    name: str,
    weights: Weights | None = None,
    *,
    backbone: Backbone | None = None,
    device: str | torch.device = "cpu",
) -> Upsampler:
    """An upsampler by name, alone: for features of one's own.

    Args:
        name: one of `UPSAMPLERS`, or the name of published weights such as `loftup_dinov2s`.
        weights: a checkpoint file, or an address for AnyUp and NAF; loftup has no default.
        backbone: makes the features; weights for others are refused.
        device: where its networks go.

    Raises:
        ValueError: no such upsampler, or for other features; the message lists the valid ones.
        WeightsNotFoundError, WeightsError: see `models.weight_files`.
    """
    import torch

    family = next((key for key, row in UPSAMPLERS.items() if name in (key, *row.published)), None)
    if family is None:
        trained = (published for row in UPSAMPLERS.values() for published in row.published)
        raise ValueError(f"unknown upsampler {name!r}; valid: {', '.join((*UPSAMPLERS, *trained))}")
    row, network = UPSAMPLERS[family], None
    if row.network:
        given = weights or (row.default or name if name == family else name)
        network = _load_for(row, given, backbone).to(device)
    elif weights is not None:
        trained = " or ".join(sorted(key for key, other in UPSAMPLERS.items() if other.network))
        raise ValueError(f"weights {str(weights)!r} need upsampler {trained}, got {name!r}")
    return row.make(network, "restored", torch.float32)


def as_upsampler(own: object, name: str = "") -> Upsampler:
    """A user's own upsampler, with its answers checked.

    Raises:
        ValueError: neither a function nor an object of a subclass of `Upsampler`.
    """
    from .base import OwnUpsampler, Upsampler

    if isinstance(own, OwnUpsampler):
        return own
    if not isinstance(own, Upsampler) and (not callable(own) or isinstance(own, type)):
        raise ValueError(
            f"upsampler must be one of {', '.join(UPSAMPLERS)}, a function (features, guide, size) "
            f"or an object of a subclass of Upsampler, got {own!r}"
        )
    return OwnUpsampler(own, name)


def load_own(text: str) -> tuple[str, Upsampler]:
    """An upsampler of one's own from a Python file: "[name=]path/to/file.py:name".

    Args:
        text: names a function or a subclass of `Upsampler` (which is then made without arguments)
            in a file, and how it is to be called; else it is called as there.

    Returns:
        What it is called, and the upsampler, its answers checked.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file has no such name, fails to load, or it is no upsampler.
    """
    name, _, place = text.rpartition("=")
    path, _, attribute = place.rpartition(":")
    if not path.endswith(".py") or not attribute.isidentifier():
        raise ValueError(f"own upsampler {text!r}: expected NAME=path/to/file.py:function_or_class")
    if not os.path.isfile(path):
        raise FileNotFoundError(f"own upsampler {text!r}: there is no file {path}")
    spec = importlib.util.spec_from_file_location(f"own_upsampler_{attribute}", path)
    assert spec is not None and spec.loader is not None, "it ends in .py"
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
        own = getattr(module, attribute)
        own = own() if isinstance(own, type) else own
    except Exception as error:  # whatever the user's file does
        reason = " ".join(str(error).split())
        raise ValueError(f"own upsampler {text!r}: {type(error).__name__}: {reason}") from error
    return name or attribute, as_upsampler(own, name or attribute)


def upsampler_choice(
    upsampler: str | Upsampler | Callable | None, use_loftup: bool | None, default: str
) -> str | Upsampler | Callable:
    """What `upsampler` and its short form `use_loftup` say together.

    Raises:
        ValueError: they contradict each other.
    """
    if upsampler is None:
        return default if use_loftup is None else "loftup" if use_loftup else "bilinear"
    if use_loftup is not None and use_loftup != (upsampler == "loftup"):
        raise ValueError(
            f"use_loftup={use_loftup} contradicts upsampler {upsampler_name(upsampler)!r}: give "
            "one of them"
        )
    return upsampler
