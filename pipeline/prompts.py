"""Confident regions of a dense class map → prompts.

A region is an 8-connected component of the pixels that have one class and at least
`min_confidence` of that class's probability. Each becomes one prompt; `pipeline.points` says where
in it the points go.

Points are (x, y) pixels of the map, boxes XYXY with exclusive ends, sizes (H, W).
Shapes: H×W pixels of the map, K classes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from .points import STRATEGIES, Point, nearest_points, pole
from .regions import Region, class_probability, components_around, find_regions
from .sizes import Size, least_pixels

logger = logging.getLogger(__name__)


class Prompt(TypedDict):
    """One confident region and where to click in it."""

    point: Point
    class_idx: int
    class_name: str
    confidence: float  # mean probability of the class in the region
    region_size: int  # pixels
    negative_points: list[Point]  # on other classes, nearest first
    points: list[Point]  # all positive points, `point` first
    box: tuple[int, int, int, int]  # of the region, XYXY
    region: Region  # the confident pixels
    component: Region  # the component of the class map around them, whatever its confidence


def extract_prompt_points_from_upsampled(
    seg_map: np.ndarray,
    probs: np.ndarray,
    vocabulary: Sequence[str],
    min_confidence: float | Sequence[float] = 0.7,
    min_region_size: Size = 100,
    *,
    strategy: str = "pole",
    points_per_region: int = 3,
    negative_points: int = 0,
    background_idx: int | None = None,
) -> list[Prompt]:
    """One prompt per confident region of a dense class map.

    Args:
        seg_map: (H, W) integer class indices.
        probs: (H, W, K) class probabilities.
        vocabulary: K class names.
        min_confidence: least probability of a region's class at each of its pixels; one for all
            classes, or one for each.
        min_region_size: least size of a region, pixels, or a share of the map: "0.1%".
        strategy: pole, centroid, peak or multi, see `pipeline.points`.
        points_per_region: most points of a region under `multi`; the others give one.
        negative_points: most points per prompt on other classes (the background included): the
            poles of the confident regions nearest to the prompt's; 0 for none.
        background_idx: a class that is not prompted.

    Returns:
        Prompts by class, then from large to small, then in reading order; empty when no region
        is confident and large enough.

    Raises:
        ValueError: maps, names or options that do not fit.
    """
    seg_map, probs = np.asarray(seg_map), np.asarray(probs)
    _check_maps(seg_map, probs, vocabulary)
    if strategy not in STRATEGIES:
        raise ValueError(f"unknown strategy {strategy!r}; valid ones: {', '.join(STRATEGIES)}")
    try:
        least_size = least_pixels(min_region_size, (seg_map.shape[0], seg_map.shape[1]))
    except ValueError as error:
        raise ValueError(f"min_region_size {error}") from None
    for name, number, lowest in (
        ("min_region_size", least_size, 0),
        ("points_per_region", points_per_region, 1),
        ("negative_points", negative_points, 0),
    ):
        if number < lowest:
            raise ValueError(f"{name} must be {lowest} or more, got {number}")
    if (values := np.asarray(min_confidence, float)).shape not in ((), (len(vocabulary),)):
        raise ValueError(
            f"min_confidence must be one number, or one for each of the {len(vocabulary)} classes, "
            f"got shape {values.shape}"
        )
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"min_confidence must be within 0..1, got {min_confidence}")
    if background_idx is not None and not 0 <= background_idx < len(vocabulary):
        raise ValueError(
            f"background_idx must be None or one of 0..{len(vocabulary) - 1}, got {background_idx}"
        )
    confidence = class_probability(seg_map, probs)
    # In the type of the probabilities, as a single number is compared: 0.7 is 0.7 in both.
    least = np.asarray(min_confidence, confidence.dtype)
    is_confident = confidence >= (least[seg_map] if least.ndim else least)
    regions = find_regions(seg_map, is_confident, max(1, least_size))
    prompted = [(c, region) for c, region in regions if c != background_idx]
    components = components_around(seg_map, [region for _, region in prompted])
    poles = [(c, pole(r, confidence[r.window])) for c, r in regions if negative_points]

    prompts: list[Prompt] = []
    for (class_idx, region), component in zip(prompted, components, strict=True):
        inside = confidence[region.window]
        points = STRATEGIES[strategy](region, inside, points_per_region)
        others = [point for c, point in poles if c != class_idx]
        prompts.append(
            Prompt(
                point=points[0],
                class_idx=class_idx,
                class_name=vocabulary[class_idx],
                confidence=float(inside[region.mask].mean(dtype=np.float64)),
                region_size=region.area,
                negative_points=nearest_points(others, region, negative_points),
                points=points,
                box=region.box,
                region=region,
                component=component,
            )
        )
    logger.debug("%d prompts from %d confident regions", len(prompts), len(regions))
    return prompts


def _check_maps(seg_map: np.ndarray, probs: np.ndarray, vocabulary: Sequence[str]) -> None:
    if vocabulary is None or isinstance(vocabulary, str) or len(vocabulary) == 0:
        raise ValueError(f"vocabulary must be a non-empty list of class names, got {vocabulary!r}")
    if seg_map.ndim != 2 or seg_map.size == 0 or not np.issubdtype(seg_map.dtype, np.integer):
        raise ValueError(
            f"seg_map must be (H, W) integers, got {seg_map.dtype} of shape {seg_map.shape}"
        )
    expected = (*seg_map.shape, len(vocabulary))
    if probs.shape != expected or not np.issubdtype(probs.dtype, np.floating):
        raise ValueError(
            f"probs must be float of shape {expected} (H, W, K: the size of seg_map, one channel "
            f"per class name), got {probs.dtype} of shape {probs.shape}"
        )
    low, high = int(seg_map.min()), int(seg_map.max())
    if low < 0 or high >= len(vocabulary):
        raise ValueError(
            f"seg_map must index the {len(vocabulary)} class names (0..{len(vocabulary) - 1}), "
            f"got values from {low} to {high}"
        )
