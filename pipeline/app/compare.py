"""One image segmented by two upsamplers: both results, and how far they agree.

    segmenter = Segmenter.from_preset("tiny", use_loftup=True)
    comparison = compare(segmenter, "street.jpg", ["person", "car", "tree"])
    print(comparison.table())

The two arms are called by their upsamplers, "bilinear" and "loftup" unless others are asked for.
Each network encodes the image once; both arms use the result.

Shapes: H×W image pixels, K classes. In label maps 0 is "nothing named", i + 1 is class i.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.images import ImageSource
from models.presets import GRID_PROMPTS
from models.upsamplers.base import Upsampler
from models.upsamplers.registry import upsampler_name
from models.vocabulary import Vocabulary

from ..drawing.overlay import shorten
from ..evaluation.metrics import class_iou, confusion, mean_iou
from ..files.atomic import write_json
from ..result import Segmentation
from ..segmenter import Segmenter

ARMS = ("bilinear", "loftup")  # unless others are asked for
MAPS = ("dense", "final")  # CLIP's map, and the one made of SAM 2's masks
_SHARED = ("clip", "text", "sam_image")  # stages that the arms have in common


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """Both results of one image.

    Attributes:
        without, with_loftup: what the first and the second arm found; their timings are as if each
            had run alone.
        metrics: see `measure`.
    """

    without: Segmentation
    with_loftup: Segmentation
    metrics: dict[str, Any]

    @property
    def arms(self) -> tuple[str, str]:
        """The names of the first and the second arm."""
        first, second = self.metrics["arms"]
        return first, second

    @property
    def results(self) -> dict[str, Segmentation]:
        """Both results by the names of their arms."""
        return dict(zip(self.arms, (self.without, self.with_loftup), strict=True))

    def to_json_dict(self) -> dict[str, Any]:
        """The metrics, then both results with masks, settings and versions, as JSON types."""
        results = {arm: result.to_json_dict() for arm, result in self.results.items()}
        return self.metrics | {"results": results}

    def save_json(self, path: str | Path) -> None:
        """Write `to_json_dict()`.

        Raises:
            OSError: the file cannot be written.
        """
        write_json(path, self.to_json_dict())

    def table(self) -> str:
        """The metrics for reading; lines of at most 79 characters."""
        arms, agreement = self.metrics["arms"], self.metrics["agreement"]
        names = tuple("LoftUp" if arm == "loftup" else arm for arm in arms)
        rows: list[tuple[str, ...]] = [("", *names)]
        if "loftup" in arms:
            shares = (
                100 * result.settings["loftup_share"] if arm == "loftup" else 0.0
                for arm, result in self.results.items()
            )
            rows.append(("LoftUp's share of the scores, %", *(_number(s, 0) for s in shares)))
        rows += [(key, *(str(arms[arm][key]) for arm in arms)) for key in ("prompts", "masks")]
        rows.append(("fewer prompts than the 32x32 grid, %", *_both(arms, "prompt_reduction")))
        stages = dict.fromkeys(stage for arm in arms for stage in arms[arm]["seconds"])
        for stage in stages:
            seconds = (arms[arm]["seconds"].get(stage) for arm in arms)
            rows.append((f"seconds, {stage}", *(_number(s, 2) for s in seconds)))
        rows.append(("seconds, total", *_both(arms, "seconds_total", 2)))
        rows += [(), ("agreement of the two, %", "pixels", "mIoU")]
        for name in MAPS:
            values = (agreement[name][key] for key in ("pixel_agreement", "mIoU"))
            rows.append((f"{name} maps", *map(_number, values)))
        lines = [f"{row[0]:<37}{row[1]:>10}{row[2]:>10}" if row else "" for row in rows]

        lines += ["", f"{'':<22}{'dense map: area, %':>27}  {'final map: area, %':>27}"]
        lines.append(f"{'':<22}" + "  ".join([f"{names[0]:>9}{names[1]:>9}{'IoU':>9}"] * 2))
        for index, label in enumerate(("nothing named", *self.without.class_names)):
            groups = []
            for name in MAPS:
                values = [_of(arms[arm]["area"][name], index, label) for arm in arms]
                values.append(_of(agreement[name]["IoU"], index, label))
                groups.append("".join(f"{_number(v):>9}" for v in values))
            lines.append(f"{shorten(label, 21):<22}" + "  ".join(groups))
        return "\n".join(lines)


def compare(
    segmenter: Segmenter,
    image: ImageSource,
    vocabulary: Sequence[str] | Vocabulary,
    *,
    upsamplers: tuple[str | Upsampler | Callable, str | Upsampler | Callable] = ARMS,
    upsampled: str | None = None,
    background: Sequence[str] | None = None,
    image_path: str | None = None,
) -> Comparison:
    """Segment an image by two upsamplers, without and with LoftUp unless others are given.

    Args:
        segmenter: whose networks and other settings both share.
        upsamplers: two names of `models.upsamplers.UPSAMPLERS`, or one's own.
        upsampled: what both upsample, see `DenseConfig`; None is what suits each.
        image, vocabulary, background, image_path: as `Segmenter.segment` takes them.

    Raises:
        ValueError, FileNotFoundError: an image or a vocabulary that cannot be used, twice the same
            upsampler, or weights that are missing.
    """
    arms = {upsampler_name(upsampler): upsampler for upsampler in upsamplers}
    if len(arms) != len(upsamplers):
        raise ValueError(
            f"both upsamplers are called {next(iter(arms))!r}: give two different ones"
        )
    segmenters = [with_upsampler(segmenter, each, upsampled) for each in upsamplers]
    words = segmenter.vocabulary(vocabulary, background)
    encoded = segmenter.dense.encode(image)
    if image_path is None and isinstance(image, str | Path):
        image_path = str(image)
    without, with_loftup = _as_if_alone(
        *(
            arm.masks(encoded, arm.dense.dense(encoded, words), words, image_path=image_path)
            for arm in segmenters
        )
    )
    first, second = arms
    metrics = measure(without, with_loftup, (first, second))
    return Comparison(without=without, with_loftup=with_loftup, metrics=metrics)


def measure(
    without: Segmentation, with_loftup: Segmentation, names: tuple[str, str] = ARMS
) -> dict[str, Any]:
    """What each arm needed and found, and how far the label maps of the two agree.

    Args:
        without, with_loftup: the first and the second arm's results of one image and vocabulary,
            as `Segmenter` makes them.
        names: of the two arms.

    Returns:
        JSON types; shares in percent, times in seconds, null where there is nothing to divide:
        {"arms": {arm: {"prompts", "masks", "prompt_reduction" (against SAM 2's automatic grid of
        32×32 points), "seconds": {stage: s}, "seconds_total", "area": {map: shares}}},
        "agreement": {map: {"pixel_agreement", "mIoU", "IoU": shares}}}, where map is "dense" or
        "final" and shares is {"unnamed": of label 0, "classes": {name: of a class}}. mIoU is the
        mean over the labels, 0 included, that occur in either map.

    Raises:
        ValueError: results of different images or vocabularies.
    """
    for what in ("size", "class_names"):
        one, other = getattr(without, what), getattr(with_loftup, what)
        if one != other:
            raise ValueError(f"the two results differ in their {what}: {one} and {other}")
    results = dict(zip(names, (without, with_loftup), strict=True))
    classes = without.class_names
    agreement = {}
    areas: dict[str, dict[str, Any]] = {arm: {} for arm in names}
    for name in MAPS:
        one, other = (r.dense_map if name == "dense" else r.label_map for r in results.values())
        matrix = confusion(one, other, len(classes) + 1)
        agreement[name] = {
            "pixel_agreement": 100 * float(matrix.trace() / matrix.sum()),
            "mIoU": mean_iou(matrix),
            "IoU": _shares(class_iou(matrix), classes),
        }
        for arm, pixels in zip(names, (matrix.sum(1), matrix.sum(0)), strict=True):
            areas[arm][name] = _shares(100 * pixels / matrix.sum(), classes)
    arms = {}
    for arm, result in results.items():
        prompts = int(result.settings["prompts"])
        arms[arm] = {
            "prompts": prompts,
            "masks": len(result),
            "prompt_reduction": 100 * (1 - prompts / GRID_PROMPTS),
            "seconds": dict(result.timings),
            "seconds_total": sum(result.timings.values()),
            "area": areas[arm],
        }
    return {"arms": arms, "agreement": agreement}


def with_upsampler(
    segmenter: Segmenter, upsampler: str | Upsampler | Callable, upsampled: str | None = None
) -> Segmenter:
    """The same networks and settings but for the upsampler, and what it upsamples."""
    changes: dict[str, Any] = {} if upsampled is None else {"upsampled": upsampled}
    if upsampler != segmenter.config.upsampler:
        changes["upsampler"] = upsampler
    return segmenter.with_config(**changes) if changes else segmenter


def _as_if_alone(*results: Segmentation) -> list[Segmentation]:
    """A shared stage costs whoever comes first; count it for all that have it."""
    full = {
        stage: max(r.timings[stage] for r in results if stage in r.timings)
        for stage in _SHARED
        if any(stage in r.timings for r in results)
    }
    return [
        dataclasses.replace(r, timings={k: full.get(k, s) for k, s in r.timings.items()})
        for r in results
    ]


def _shares(values: np.ndarray, names: tuple[str, ...]) -> dict[str, Any]:
    """Values of the labels 0…K; a class might be named as label 0 is, so that one is apart."""
    unnamed, *rest = (None if math.isnan(value) else value for value in values.tolist())
    return {"unnamed": unnamed, "classes": dict(zip(names, rest, strict=True))}


def _of(shares: dict[str, Any], label: int, name: str) -> float | None:
    return shares["classes"][name] if label else shares["unnamed"]


def _both(arms: dict[str, Any], key: str, digits: int = 1) -> tuple[str, ...]:
    return tuple(_number(arms[arm][key], digits) for arm in arms)


def _number(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
