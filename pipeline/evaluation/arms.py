"""Arms of a benchmark by name: ways from an image to a label map.

An arm is an upsampler and any number of modifiers, joined by "+", such as `loftup+sam2+centroid`;
`MEANING` says what each part stands for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..config import PipelineConfig
from ..points import STRATEGIES

# Attributes of the segmentor.
UPSAMPLERS: dict[str, dict[str, Any]] = {
    name: {"upsampler": name, "upsampled": None, "loftup_share": 1.0}
    for name in ("none", "bilinear", "bicubic", "jbu", "guided", "anyup", "loftup")
}
UPSAMPLERS["probability"] = UPSAMPLERS["bilinear"] | {"upsampled": "probabilities"}
UPSAMPLERS["mean"] = UPSAMPLERS["loftup"] | {"loftup_share": 0.5}
_FIXED = ("loftup", "probability", "mean")  # in what they enlarge
_DENSE: dict[str, dict[str, Any]] = {
    "pamr": {"use_pamr": True},
    "csa": {"attention": "csa"},
    "vanilla": {"attention": "vanilla"},
    "maskclip": {"attention": "maskclip"},
    "restored": {"text_space": "restored"},
    "channel_norm": {"text_space": "channel_norm"},
    "whole": {"whole_image": True},
    "features": {"upsampled": "features"},
    "scores": {"upsampled": "scores"},
}
# Fields of the configuration.
_FINAL: dict[str, dict[str, Any]] = {name: {"strategy": name} for name in STRATEGIES} | {
    "point": {"prompt_mask": False},
    "box": {"prompt_box": True},
    "negatives": {"negative_points": 2},
}
ORACLES = ("oracle-points", "oracle-masks")
MODIFIERS = {"sam2": {}, **_FINAL, **_DENSE}
MEANING = {
    "none": "every pixel takes the scores of its patch",
    "bilinear": "word scores enlarged bilinearly, as published SCLIP",
    "bicubic": "word scores enlarged bicubically",
    "jbu": "word scores enlarged by joint bilateral upsampling",
    "guided": "word scores enlarged bilinearly, then by the guided filter",
    "anyup": "features enlarged by AnyUp, then scored",
    "probability": "the words' probabilities enlarged bilinearly instead of their scores",
    "loftup": "features enlarged by LoftUp, then scored; LoftUp alone",
    "mean": "half the scores of loftup, half those of bilinear",
    "oracle-points": "not a method: SAM 2 is told a point of every true object, its class",
    "oracle-masks": "not a method: SAM 2's automatic masks, each given its true majority class",
    "+sam2": "final masks instead of the dense map",
    "+pole": "SAM 2 is clicked where a region is deepest and surest (the default)",
    "+centroid": "SAM 2 is clicked in the region's middle",
    "+peak": "SAM 2 is clicked where the class is most probable",
    "+multi": "SAM 2 is clicked in several places of a region",
    "+point": "SAM 2 is told the point without the region's mask",
    "+box": "SAM 2 is told the region's box as well",
    "+negatives": "SAM 2 is told two points on other classes as well",
    "+pamr": "scores refined by PAMR, on the resized image",
    "+csa": "CLIP's last block as in SCLIP (the default)",
    "+vanilla": "CLIP's last block as it is",
    "+maskclip": "CLIP's last block as in MaskCLIP",
    "+restored": "LoftUp's output back in CLIP's joint space (the default)",
    "+channel_norm": "LoftUp's output compared with the words as it is",
    "+whole": "the whole image is upsampled at once instead of window by window",
    "+features": "features enlarged, then scored (the default of anyup)",
    "+scores": "word scores enlarged (the default of all but anyup and loftup)",
}
# What makes a dense map; written beside the predictions.
DENSE_ATTRIBUTES = (
    "attention", "upsampler", "upsampled", "loftup_share", "text_space", "whole_image",
    "use_pamr", "use_sam", "precision",
)  # fmt: skip


# Fields of `PipelineConfig` that shape the masks, not the dense map.
FINAL_FIELDS = tuple(
    field.name for field in dataclasses.fields(PipelineConfig) if field.name not in DENSE_ATTRIBUTES
)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way from an image to a label map.

    Attributes:
        name: what the user typed; folder of its predictions.
        dense: attributes of the segmentor.
        final: SAM 2's masks instead of the dense map.
        config: fields of `PipelineConfig` (final arms).
        oracle: which oracle instead of a method, or None.
    """

    name: str
    dense: dict[str, Any] = field(default_factory=dict)
    final: bool = False
    config: dict[str, Any] = field(default_factory=dict)
    oracle: str | None = None

    @property
    def needs_sam(self) -> bool:
        return self.final or self.oracle is not None


def parse_arm(name: str) -> Arm:
    """The arm that `name` describes.

    Raises:
        ValueError: an unknown or contradictory part; the message says which and what is valid.
    """
    base, *modifiers = name.split("+")
    if base in ORACLES and not modifiers:
        return Arm(name=name, oracle=base)
    if base not in UPSAMPLERS:
        raise ValueError(
            f"unknown arm {name!r}: {base!r} is none of {', '.join((*UPSAMPLERS, *ORACLES))}"
            + (" (oracles take no modifiers)" if base in ORACLES else "")
        )
    dense, config = dict(UPSAMPLERS[base]), {}
    final = "sam2" in modifiers
    for word in modifiers:
        if word not in MODIFIERS:
            raise ValueError(f"arm {name!r}: unknown +{word}; valid: +{', +'.join(MODIFIERS)}")
        if word in _FINAL and not final:
            raise ValueError(f"arm {name!r}: +{word} is about SAM 2's prompts; add +sam2")
        rivals = [w for w in modifiers if MODIFIERS.get(w, {}).keys() == MODIFIERS[word].keys()]
        if len(rivals) > 1:
            raise ValueError(f"arm {name!r}: give only one of +{' +'.join(rivals)}")
        (config if word in _FINAL else dense).update(MODIFIERS[word])
    fixed = [word for word in modifiers if base in _FIXED and word in ("features", "scores")]
    if fixed:
        valid = ", ".join(word for word in UPSAMPLERS if word not in _FIXED)
        raise ValueError(f"arm {name!r}: +{fixed[0]} is for {valid} only")
    if "text_space" in dense and dense["upsampler"] != "loftup":
        raise ValueError(f"arm {name!r}: +{dense['text_space']} is for loftup and mean only")
    return Arm(name=name, dense=dense, final=final, config=config)


def parse_arms(names: Sequence[str]) -> list[Arm]:
    """Several arms.

    Raises:
        ValueError: see `parse_arm`; or none, or one is named twice.
    """
    if not names:
        raise ValueError(f"no arms given; name some, e.g. {' '.join(UPSAMPLERS)} loftup+sam2")
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"arm {name!r} is given twice; remove one")
    return [parse_arm(name) for name in names]
