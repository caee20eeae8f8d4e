"""Arms of a benchmark by name: ways from an image to a label map.

An arm is an upsampler and any number of modifiers, joined by "+", such as `loftup+sam2+centroid`;
`meanings` says what each part stands for. It is a change of the configuration, no more. A setting
that has no short name is written out, as in `guided+protocol=plain-voc21` or `loftup+min_score=0`,
and an upsampler of one's own is named and given by its file: `mine=path/to/file.py:name+sam2`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from models.dense_methods import METHODS
from models.upsamplers.registry import UPSAMPLERS, load_own

from ..config import DENSE_FIELDS, FINAL_FIELDS, PipelineConfig


class Part(NamedTuple):
    """One part of an arm's name: what it changes, and what that means."""

    changes: dict[str, Any]
    meaning: str


def of_upsampler(upsampler: object, meaning: str, **changes: Any) -> Part:
    """The part of an arm that names an upsampler, by its name or one's own."""
    return Part({"upsampler": upsampler, "upsampled": None, "loftup_share": 1.0} | changes, meaning)


BASES: dict[str, Part] = {
    **{name: of_upsampler(name, row.meaning) for name, row in UPSAMPLERS.items()},
    "probability": of_upsampler(
        "bilinear",
        "the words' probabilities upsampled bilinearly instead of their scores",
        upsampled="probabilities",
    ),
    "mean": of_upsampler(
        "loftup", "half the scores of loftup, half those of bilinear", loftup_share=0.5
    ),
}
ORACLES = {
    "oracle-points": "not a method: SAM 2 is told a point of every true object, its class",
    "oracle-masks": "not a method: SAM 2's automatic masks, each given its true majority class",
}
MODIFIERS: dict[str, Part] = {
    "sam2": Part({}, "final masks instead of the dense map"),
    "pole": Part(
        {"strategy": "pole"}, "SAM 2 is clicked where a region is deepest and surest (the default)"
    ),
    "centroid": Part({"strategy": "centroid"}, "SAM 2 is clicked in the region's middle"),
    "peak": Part({"strategy": "peak"}, "SAM 2 is clicked where the class is most probable"),
    "multi": Part({"strategy": "multi"}, "SAM 2 is clicked in several places of a region"),
    "point": Part({"prompt_mask": False}, "SAM 2 is told the point without the region's mask"),
    "box": Part({"prompt_box": True}, "SAM 2 is told the region's box as well"),
    "negatives": Part({"negative_points": 2}, "SAM 2 is told two points on other classes as well"),
    "pamr": Part({"use_pamr": True}, "scores refined by PAMR, on the resized image"),
    **{name: Part({"attention": name}, row.meaning) for name, row in METHODS.items()},
    "imagenet": Part(
        {"statistics": "imagenet"},
        "CLIP's images normalised with ImageNet's statistics, as LoftUp's published weights saw",
    ),
    "restored": Part(
        {"text_space": "restored"}, "LoftUp's output back in CLIP's joint space (the default)"
    ),
    "channel_norm": Part(
        {"text_space": "channel_norm"}, "LoftUp's output compared with the words as it is"
    ),
    "whole": Part(
        {"whole_image": True}, "the whole image is upsampled at once instead of window by window"
    ),
    "features": Part(
        {"upsampled": "features"}, "features upsampled, then scored (the default of trained ones)"
    ),
    "scores": Part({"upsampled": "scores"}, "word scores upsampled (the default of the others)"),
}


def meanings() -> dict[str, str]:
    """Every part of an arm's name, and what it says."""
    bases = {name: part.meaning for name, part in BASES.items()}
    modifiers = {f"+{name}": part.meaning for name, part in MODIFIERS.items()}
    own = {
        "+SETTING=VALUE": "any other setting of the pipeline, such as +min_score=0",
        "NAME=FILE.py:FUNCTION": "an upsampler of your own, called NAME",
    }
    return bases | ORACLES | modifiers | own


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way from an image to a label map.

    Attributes:
        name: folder of its predictions.
        changes: of the configuration.
        final: SAM 2's masks instead of the dense map.
        oracle: which oracle instead of a method, or None.
    """

    name: str
    changes: dict[str, Any] = field(default_factory=dict)
    final: bool = False
    oracle: str | None = None

    @property
    def needs_sam(self) -> bool:
        return self.final or self.oracle is not None

    @property
    def dense_changes(self) -> dict[str, Any]:
        """Those that make another dense map."""
        return {name: value for name, value in self.changes.items() if name in DENSE_FIELDS}


def parse_arm(text: str) -> Arm:
    """The arm that `text` describes.

    Raises:
        ValueError: an unknown or contradictory part; the message says which and what is valid.
        FileNotFoundError: no such file of one's own.
    """
    base, *words = text.split("+")
    if base in ORACLES and not words:
        return Arm(name=text, oracle=base)
    name = text
    if "=" in base:
        own, upsampler = load_own(base)
        _check_own(own)
        part, name = of_upsampler(upsampler, ""), "+".join((own, *words))
    elif base in BASES:
        part = BASES[base]
    else:
        raise ValueError(
            f"unknown arm {text!r}: {base!r} is none of {', '.join((*BASES, *ORACLES))}"
            + (" (oracles take no modifiers)" if base in ORACLES else "")
        )
    changes = dict(part.changes)
    final = "sam2" in words
    for word, change in _modifiers(text, words).items():
        if not final and any(setting in FINAL_FIELDS for setting in change):
            raise ValueError(f"arm {text!r}: +{word} is about SAM 2's prompts; add +sam2")
        changes |= change
    _check(text, base, changes, words)
    return Arm(name=name, changes=changes, final=final)


def _modifiers(text: str, words: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What each modifier changes.

    Raises:
        ValueError: an unknown one, or two of the same settings.
    """
    found = {word: _change(text, word) for word in words}
    for change in found.values():
        rivals = [word for word in words if found[word].keys() == change.keys()]
        if len(rivals) > 1:
            raise ValueError(f"arm {text!r}: give only one of +{' +'.join(rivals)}")
    return found


def _change(text: str, word: str) -> dict[str, Any]:
    if word in MODIFIERS:
        return MODIFIERS[word].changes
    name, equals, value = word.partition("=")
    fields = {f.name: f for f in dataclasses.fields(PipelineConfig) if f.name != "upsampler"}
    if not equals or name not in fields:
        raise ValueError(
            f"arm {text!r}: unknown +{word}; valid: +{', +'.join(MODIFIERS)}, or a setting as "
            f"+min_score=0 ({', '.join(fields)})"
        )
    return {name: _value(text, fields[name], value)}


def _value(text: str, setting: dataclasses.Field, value: str) -> Any:
    """A setting's value as it is typed."""
    if isinstance(setting.default, bool) or "bool" in str(setting.type):
        choices = {"true": True, "on": True, "false": False, "off": False}
        if value.lower() not in choices:
            raise ValueError(f"arm {text!r}: {setting.name} is on or off, got {value!r}")
        return choices[value.lower()]
    if own := setting.metadata.get("kind"):
        try:
            return own(value)
        except ValueError as error:
            raise ValueError(f"arm {text!r}: {setting.name} {error}") from error
    kind = float if "float" in str(setting.type) else int if setting.type == "int" else str
    try:
        return kind(value)
    except ValueError as error:
        raise ValueError(f"arm {text!r}: {setting.name}={value!r} is no number") from error


def _check(text: str, base: str, changes: dict[str, Any], words: Sequence[str]) -> None:
    """Refuse what the settings themselves would, and what would change nothing."""
    if base in ("mean", "probability") and (word := next(
        (word for word in words if word in ("features", "scores")), None
    )):  # fmt: skip
        valid = ", ".join(name for name, row in UPSAMPLERS.items() if len(row.upsampled) > 1)
        raise ValueError(f"arm {text!r}: +{word} is for {valid} only")
    if "text_space" in changes and changes["upsampler"] != "loftup":
        raise ValueError(f"arm {text!r}: +{changes['text_space']} is for loftup and mean only")
    try:
        unused = PipelineConfig(**changes).unused() & changes.keys()
    except ValueError as error:
        raise ValueError(f"arm {text!r}: {error}") from error
    if unused:
        raise ValueError(
            f"arm {text!r}: the dense method does not use {', '.join(sorted(unused))}; add one "
            "that does, such as +proxy or +corr, or leave it out"
        )


def _check_own(name: str) -> None:
    if name in BASES or name in ORACLES or not name.replace("_", "").replace("-", "").isalnum():
        raise ValueError(
            f"an upsampler of your own needs a name of letters and digits that is not taken, got "
            f"{name!r}"
        )


def parse_arms(names: Sequence[str]) -> list[Arm]:
    """Several arms.

    Raises:
        ValueError: see `parse_arm`; or none, or one is named twice.
    """
    if not names:
        raise ValueError(f"no arms given; name some, e.g. {' '.join(BASES)} loftup+sam2")
    arms = [parse_arm(name) for name in names]
    found = [arm.name for arm in arms]
    for name in found:
        if found.count(name) > 1:
            raise ValueError(f"arm {name!r} is given twice; remove one")
    return arms
