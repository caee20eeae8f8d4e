"""SAM's candidate masks → the chosen, merged masks and one label map. Pure functions.

SAM answers a point with three nested candidates (part, object, whole) and a predicted IoU for
each, but does not know which of them was meant. The dense class map does: the right candidate
resembles the component of the map that the prompt came from.

Boxes XYXY with exclusive ends, sizes (H, W), scores and IoUs 0..1.
Shapes: N prompts, C candidates of each (SAM: 3), L side of SAM's mask logits, M masks, K classes,
H×W pixels of the original image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from typing import Any

import numpy as np

from .files.label_png import label_dtype
from .regions import Region

RULES = ("product", "iou", "agreement")


def choose_candidates(
    low_res: np.ndarray,
    iou: np.ndarray,
    prompts: Sequence[Mapping[str, Any]],
    size: tuple[int, int],
    *,
    rule: str = "product",
) -> tuple[np.ndarray, np.ndarray]:
    """Chooses one of SAM's candidates per prompt, before any is upsampled.

    Agreement is the IoU of a candidate (logits above 0) with the prompt's `component`, measured on
    SAM's own grid: the component enters as the share of each cell that it covers, so that one
    smaller than a cell still counts by its area.

    Args:
        low_res: (N, C, L, L) mask logits; the grid spans the whole image, squashed to a square.
        iou: (N, C) predicted IoUs.
        prompts: N prompts, as from `extract_prompt_points_from_upsampled`.
        size: (H, W) of the original image.
        rule: what the choice maximises: product (predicted IoU × agreement), iou or agreement.
            Among equals the first.

    Returns:
        (N,) int64, which candidate; (N,) float32, its agreement.
    """
    low_res, iou = np.asarray(low_res), np.asarray(iou, np.float32)
    if rule not in RULES:
        raise ValueError(f"unknown rule {rule!r}; valid ones: {', '.join(RULES)}")
    if low_res.ndim != 4 or low_res.shape[2] != low_res.shape[3] or low_res.shape[1] == 0:
        raise ValueError(f"low_res must be logits (N, C, L, L), got shape {low_res.shape}")
    if iou.shape != low_res.shape[:2] or len(prompts) != len(low_res):
        raise ValueError(
            f"low_res is for {low_res.shape[:2]} prompts × candidates, but iou has shape "
            f"{iou.shape} and there are {len(prompts)} prompts; give one row per prompt"
        )
    if not np.isfinite(iou).all():
        raise ValueError("the predicted IoUs must be finite numbers, got NaN or infinity")

    agreements = np.zeros(iou.shape, np.float32)
    coverages: dict[int, np.ndarray] = {}  # prompts on one component share it
    for row, prompt in enumerate(prompts):
        component = prompt["component"]
        if id(component) not in coverages:
            coverages[id(component)] = component.coverage(size, low_res.shape[-1])
        agreements[row] = _soft_iou(low_res[row] > 0, coverages[id(component)])

    # An untrained or unbounded IoU head may leave 0..1; signs must not turn a product around.
    bounded = iou.clip(0, 1)
    value = {"product": bounded * agreements, "iou": iou, "agreement": agreements}[rule]
    index = value.argmax(axis=1)
    return index, agreements[np.arange(len(index)), index]


def _soft_iou(candidates: np.ndarray, coverage: np.ndarray) -> np.ndarray:
    """IoU of (C, L, L) bool with (L, L) shares of cells, (C,)."""
    shared = (candidates * coverage).sum(axis=(1, 2), dtype=np.float64)
    total = np.count_nonzero(candidates, axis=(1, 2)) + coverage.sum(dtype=np.float64)
    union = total - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def merge_overlapping(
    masks: Sequence[Region],
    class_ids: Sequence[int] | np.ndarray,
    scores: Sequence[float] | np.ndarray,
    iou_threshold: float = 0.8,
) -> list[list[int]]:
    """Groups masks of one class that show the same object.

    From the best score down, each mask not yet grouped takes in every remaining mask of its class
    that overlaps it by more than the threshold. Equal scores go by index.

    Args:
        masks: M masks.
        class_ids: M class indices.
        scores: M scores.
        iou_threshold: IoU above which two masks are one; 1 merges nothing.

    Returns:
        Groups of indices, each best first: keep `group[0]`, pool the points of the others into
        it. Groups by the score of their best; together they hold each index once.
    """
    _check_lengths(masks, class_ids, scores)
    if not 0 <= iou_threshold <= 1:
        raise ValueError(f"iou_threshold must be within 0..1, got {iou_threshold}")
    class_ids = np.asarray(class_ids)
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable").tolist()
    if iou_threshold == 1:
        return [[i] for i in order]
    areas = np.array([mask.area for mask in masks], np.int64)
    boxes = np.array([mask.box for mask in masks], np.int64).reshape(-1, 4)

    groups, grouped = [], np.zeros(len(masks), bool)
    for best in order:
        if grouped[best]:
            continue
        # The overlap is at most that of the boxes and the smaller area, and IoU grows with it:
        # only pairs that could pass are compared pixel by pixel.
        ends = np.minimum(boxes[best, 2:], boxes[:, 2:])
        sides = (ends - np.maximum(boxes[best, :2], boxes[:, :2])).clip(0)
        bound = np.minimum(sides.prod(axis=1), np.minimum(areas[best], areas))
        possible = bound > iou_threshold * (areas[best] + areas - bound)
        possible &= (class_ids == class_ids[best]) & ~grouped
        group = [best]
        for other in order:
            if other != best and possible[other]:
                shared = masks[best].overlap(masks[other])
                if shared > iou_threshold * (areas[best] + areas[other] - shared):
                    group.append(other)
        grouped[group] = True
        groups.append(group)
    return groups


def resolve_label_map(
    masks: Sequence[Region],
    class_ids: Sequence[int] | np.ndarray,
    scores: Sequence[float] | np.ndarray,
    probs: np.ndarray | None,
    size: tuple[int, int],
) -> np.ndarray:
    """One class per pixel from masks that may overlap.

    Where masks of several classes meet, the pixel goes to the highest score × probability of the
    mask's class at that pixel, among equals to the earlier mask.

    Args:
        masks: M masks.
        class_ids: M class indices, 0..K-1.
        scores: M scores, 0 or more.
        probs: (K, H, W) dense class probabilities; None decides by score alone.
        size: (H, W).

    Returns:
        (H, W) label map: 0 where no mask is, class index + 1 elsewhere; of `label_dtype` of K
        classes, or without `probs` of as many as the highest class index says.
    """
    _check_lengths(masks, class_ids, scores)
    ids = np.asarray(class_ids, np.int64)
    weights = np.asarray(scores, np.float32)
    if not (weights >= 0).all():
        raise ValueError(f"scores must be numbers of 0 or more, got {weights.min()}")
    if probs is not None and (probs.ndim != 3 or probs.shape[1:] != tuple(size)):
        raise ValueError(
            f"probs must be (K, H, W) with (H, W) = {tuple(size)}, got shape {probs.shape}"
        )
    classes = int(ids.max(initial=0)) + 1 if probs is None else len(probs)
    if len(ids) and not (ids.min() >= 0 and ids.max() < classes):
        raise ValueError(f"class_ids must be 0..{classes - 1}, got {ids.min()}..{ids.max()}")

    labels = np.zeros(size, label_dtype(classes))
    best = np.full(size, -1, np.float32)
    for mask, class_id, weight in zip(masks, ids, weights, strict=True):
        mask.check_inside(size)
        window = mask.window
        value = weight if probs is None else probs[class_id][window].astype(np.float32) * weight
        wins = mask.mask & (value > best[window])
        labels[window][wins] = class_id + 1
        best[window] = np.where(wins, value, best[window])
    return labels


def _check_lengths(masks: Sized, class_ids: Sized, scores: Sized) -> None:
    if not len(masks) == len(class_ids) == len(scores):
        raise ValueError(
            "masks, class_ids and scores must have one entry per mask, got "
            f"{len(masks)}, {len(class_ids)} and {len(scores)}"
        )
