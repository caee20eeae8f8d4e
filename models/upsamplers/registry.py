"""The upsamplers by name: a row each. Everything else about them derives from these rows, the
command line and its help, arms of benchmarks, checks, what is loaded and what is recorded.

Nothing heavy is imported before an upsampler is built, so programs can list them at once.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..presets import ANYUPS, DEFAULT_ANYUP, LOFTUPS, Preset, loftup_for

if TYPE_CHECKING:
    import torch
    from torch import nn

    from .base import Upsampler

UPSAMPLED = ("features", "scores", "probabilities")  # what can be upsampled
_LINEAR = ("scores", "features", "probabilities")
TEXT_SPACES = ("restored", "channel_norm")
Weights = str | os.PathLike


@dataclass(frozen=True, kw_only=True, slots=True)
class UpsamplerRow:
    """One upsampler.

    Attributes:
        meaning: what it does, for tables and help.
        upsampled: what it can upsample, of `UPSAMPLED`; the first unless told otherwise.
        build: (network or None, text_space, dtype of its products) -> the upsampler.
        network: loads its trained network, given weights (None: the default ones) and the preset
            whose features it is for (None: any); None where nothing was trained.
        published: names of weights that can be fetched, for all backbones together.
        weights_help: of its option --NAME-model.
        scales_colours: it takes colours of any scale and scales them itself: it is given the
            normalised image, as undoing that would round.
    """

    meaning: str
    upsampled: tuple[str, ...] = _LINEAR
    build: Callable[[Any, str, Any], Upsampler]
    network: Callable[[Weights | None, Preset | None], nn.Module] | None = None
    published: tuple[str, ...] = ()
    weights_help: str = ""
    scales_colours: bool = False


def _resize(mode: str) -> Callable[..., Upsampler]:
    def build(*_: object) -> Upsampler:
        from .base import Resize

        return Resize(mode)

    return build


def _joint_bilateral(*_: object) -> Upsampler:
    from .joint_bilateral import JointBilateral

    return JointBilateral()


def _guided_filter(*_: object) -> Upsampler:
    from .guided_filter import GuidedFilter

    return GuidedFilter()


def _loftup_network(weights: Weights | None, preset: Preset | None) -> nn.Module:
    from ..weights import load_loftup

    if preset is not None:
        weights = weights or preset.loftup
        # A name, not a file: refused before it is fetched.
        if str(weights) in LOFTUPS or not (os.path.splitext(weights)[1] or os.path.exists(weights)):
            loftup_for(preset.clip.features, str(weights))
    return load_loftup("loftup" if weights is None else weights)


def _loftup(network: Any, text_space: str, dtype: torch.dtype) -> Upsampler:
    from .trained import LoftUpUpsampler

    return LoftUpUpsampler(network, text_space, dtype)


def _anyup_network(weights: Weights | None, preset: Preset | None) -> nn.Module:
    from ..weights import load_anyup

    return load_anyup(weights or DEFAULT_ANYUP)


def _anyup(network: Any, *_: object) -> Upsampler:
    from .trained import AnyUpUpsampler

    return AnyUpUpsampler(network)


UPSAMPLERS: dict[str, UpsamplerRow] = {
    "none": UpsamplerRow(
        meaning="every pixel takes the scores of its patch", build=_resize("nearest-exact")
    ),
    "bilinear": UpsamplerRow(
        meaning="word scores upsampled bilinearly, as published SCLIP", build=_resize("bilinear")
    ),
    "bicubic": UpsamplerRow(meaning="word scores upsampled bicubically", build=_resize("bicubic")),
    "jbu": UpsamplerRow(
        meaning="word scores upsampled by joint bilateral upsampling", build=_joint_bilateral
    ),
    "guided": UpsamplerRow(
        meaning="word scores upsampled bilinearly, then by the guided filter", build=_guided_filter
    ),
    "loftup": UpsamplerRow(
        meaning="features upsampled by LoftUp, then scored",
        upsampled=("features",),
        build=_loftup,
        network=_loftup_network,
        published=tuple(LOFTUPS),
        weights_help="LoftUp name or weights file (default: the preset's)",
        scales_colours=True,
    ),
    "anyup": UpsamplerRow(
        meaning="features upsampled by AnyUp, then scored",
        upsampled=("features", "scores", "probabilities"),  # as published; scores are cheaper
        build=_anyup,
        network=_anyup_network,
        published=tuple(ANYUPS),
        weights_help=f"AnyUp name ({', '.join(ANYUPS)}), weights file or address "
        f"(default: {DEFAULT_ANYUP})",
    ),
}


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
    device: str | torch.device = "cpu",
) -> Upsampler:
    """An upsampler by name, alone: for features of one's own.

    Args:
        name: one of `UPSAMPLERS`, or the name of published weights such as `loftup_dinov2s`.
        weights: a checkpoint file, or an address for AnyUp; loftup has no default.
        device: where its networks go.

    Raises:
        ValueError: no such upsampler; the message lists those there are.
        WeightsNotFoundError, WeightsError: see `models.weight_files`.
    """
    import torch

    family = next((key for key, row in UPSAMPLERS.items() if name in (key, *row.published)), None)
    if family is None:
        trained = (published for row in UPSAMPLERS.values() for published in row.published)
        raise ValueError(f"unknown upsampler {name!r}; valid: {', '.join((*UPSAMPLERS, *trained))}")
    row = UPSAMPLERS[family]
    if row.network is None:
        if weights is not None:
            trained = " or ".join(key for key, other in UPSAMPLERS.items() if other.network)
            raise ValueError(f"weights {str(weights)!r} need upsampler {trained}, got {name!r}")
        return row.build(None, "restored", torch.float32)
    network = row.network(weights or (None if name == family else name), None)
    return row.build(network.to(device), "restored", torch.float32)


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
