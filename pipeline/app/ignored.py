"""Options that others make meaningless are refused, not ignored: a row for each kind.

Every option of a program that is in no row, and is not refused where it is read (weights of an
upsampler that is not used, `given_weights`; --min-confidence where each class has a --threshold,
`read_vocabulary`), matters in every run.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from models.dense_methods.settings import SAM2, MethodSettings
from models.presets import get_preset
from models.upsamplers.registry import UPSAMPLERS

from .options import choose_preset


class Needs(NamedTuple):
    """Options that are used only if something else is asked for."""

    options: tuple[str, ...]  # names in the parsed arguments
    met: Callable[[argparse.Namespace], bool]  # whether they are used
    what: str  # they need, as it is typed


def method_settings(args: argparse.Namespace) -> MethodSettings:
    """Of the dense method, as typed; the second network is the preset's where none is."""
    names = [field.name for field in dataclasses.fields(MethodSettings)]
    found = MethodSettings(**{name: getattr(args, name) for name in names})
    proxy = found.proxy or get_preset(choose_preset(args)).proxy_of(found.attention)
    return dataclasses.replace(found, proxy=proxy)


def _uses(name: str) -> Callable[[argparse.Namespace], bool]:
    return lambda args: name not in method_settings(args).unused()


def uses_proxy_weights(settings: MethodSettings) -> bool:
    """Whether there is a second network with weights of its own; of settled settings."""
    return settings.uses_proxy and settings.proxy != SAM2


def uses_proxy_upsampler_weights(settings: MethodSettings) -> bool:
    """Whether its features are upsampled by a trained upsampler."""
    upsampled = settings.uses_proxy and settings.proxy_scale > 1
    return upsampled and bool(UPSAMPLERS[settings.proxy_upsampler].network)


_PROXY_WEIGHTS = {  # option → whether settings use it, what it needs
    "proxy_model": (
        uses_proxy_weights,
        "a second network other than sam2 (a method that has one, such as proxy, and --proxy)",
    ),
    "proxy_upsampler_model": (
        uses_proxy_upsampler_weights,
        "a second network, a scale above 1 and a trained upsampler of its features",
    ),
}
_CORR = ("corr_scope", "corr_value", "corr_merge", "corr_spatial", "corr_semantic")

# Settings of one upsampler, method or strategy, whatever the program.
SETTINGS = (
    Needs(_CORR, _uses("corr_scope"), "--attention corr"),
    Needs(
        ("proxy", "proxy_scale"),
        _uses("proxy"),
        "a second network: --attention proxy or corr, or --regions proxy with --map-correction",
    ),
    Needs(
        ("proxy_upsampler",), _uses("proxy_upsampler"), "a second network and --proxy-scale above 1"
    ),
    Needs(("regions",), _uses("regions"), "--attention corr or --map-correction"),
    Needs(
        ("region_similarity",),
        _uses("region_similarity"),
        "--regions proxy, with --attention corr or --map-correction",
    ),
    *(
        Needs((name,), lambda args, used=used: used(method_settings(args)), what)
        for name, (used, what) in _PROXY_WEIGHTS.items()
    ),
    Needs(("points_per_region",), lambda args: args.strategy == "multi", "--strategy multi"),
)
LOFTUP = ("loftup_share", "text_space")


def flag(name: str) -> str:
    """The option of a name in the parsed arguments."""
    return "--" + name.replace("_", "-")


def refuse_ignored(args: argparse.Namespace, rows: Sequence[Needs]) -> None:
    """Refuse what would not be used.

    Args:
        args: parsed by `Parser.parse_all`, whose `given` says what was typed.
        rows: of the program.

    Raises:
        ValueError: naming the option, and what it needs.
    """
    for row in rows:
        for name in row.options:
            if name in args.given and not row.met(args):
                raise ValueError(f"{flag(name)} needs {row.what}: without it, it would not be used")


def refuse_proxy_weights(args: argparse.Namespace, settings: Iterable[MethodSettings]) -> None:
    """Refuse weights of a second network, or of its upsampler, that no settings use.

    Args:
        args: with `proxy_model` and `proxy_upsampler_model`.
        settings: settled ones, of all that is run.

    Raises:
        ValueError: naming the option, and what it needs.
    """
    settings = list(settings)
    for name, (used, what) in _PROXY_WEIGHTS.items():
        if getattr(args, name) and not any(map(used, settings)):
            raise ValueError(f"{flag(name)} needs {what}: without it, it would not be used")
