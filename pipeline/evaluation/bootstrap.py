"""How sure a difference between two arms is: paired bootstrap over the images of a data set.

Shapes: N images, C labels, R resamples. Arms are ways to segment the same images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from .metrics import iou_percent

_ROUNDING = 1e-9  # of percentages
_CHUNK = 64  # resamples drawn at a time, so that memory does not grow with their number


class Interval(NamedTuple):
    """A value on all images, and the middle 95 % of its values on resampled data sets.

    Of few images these may lie beside the value: resamples that miss a class average over fewer
    classes, and nearly all of them then lie on one side. No interval made of such samples holds the
    value (a bias-corrected one neither: it fails at the same 2.5 %), so both ends are NaN then.
    """

    value: float
    low: float
    high: float


class Bootstrap(NamedTuple):
    """Mean IoU in percent and differences in percentage points.

    Attributes:
        arms: interval of every arm's mIoU.
        differences: "later - earlier": interval of the difference, for every pair in dict order.
    """

    arms: dict[str, Interval]
    differences: dict[str, Interval]


def paired_bootstrap(
    counts: Mapping[str, np.ndarray], *, resamples: int = 2000, seed: int = 0
) -> Bootstrap:
    """95 % percentile intervals of the data-set mIoU of arms and of their differences.

    `counts` are (N, 2, C) intersections and unions per image and arm, images in one order. N images
    are drawn with replacement, which is: how often each comes is one draw of the multinomial
    distribution with N equal probabilities. All arms get the same ones, so that what makes an image
    hard for all of them cancels in differences. The draws depend on N and the seed alone.
    ValueError when arms have different shapes.
    """
    if resamples < 1:
        raise ValueError(f"{resamples} resamples asked for; expected at least 1.")
    shapes = {arm: np.shape(values) for arm, values in counts.items()}
    for arm, shape in shapes.items():
        if len(shape) != 3 or shape[0] < 1 or shape[1] != 2:
            raise ValueError(f"Counts of {arm!r} have shape {shape}; expected (N, 2, C), N ≥ 1.")
        if shape != next(iter(shapes.values())):
            raise ValueError(f"Arms need counts of the same images and labels, not {shapes}.")
    if not shapes:
        return Bootstrap({}, {})

    images = next(iter(shapes.values()))[0]
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[np.ndarray]] = {arm: [] for arm in counts}
    flat = {arm: np.asarray(c, np.float64).reshape(images, -1) for arm, c in counts.items()}
    for start in range(0, resamples, _CHUNK):
        size = min(_CHUNK, resamples - start)
        times = rng.multinomial(images, np.full(images, 1 / images), size).astype(np.float64)
        for arm, values in flat.items():
            # Sums of whole numbers: exact in float64, whatever the order.
            drawn[arm].append(_mean_iou((times @ values).reshape(size, 2, -1)))
    samples = {arm: np.concatenate(parts) for arm, parts in drawn.items()}  # (R,) each
    whole = {arm: float(_mean_iou(np.sum(c, axis=0))) for arm, c in counts.items()}

    arms = list(counts)
    return Bootstrap(
        {arm: _interval(whole[arm], samples[arm]) for arm in arms},
        {
            f"{later} - {earlier}": _interval(
                whole[later] - whole[earlier], samples[later] - samples[earlier]
            )
            for i, later in enumerate(arms)
            for earlier in arms[:i]
        },
    )


def _mean_iou(sums: np.ndarray) -> np.ndarray:
    """(…,) mIoU in percent of (…, 2, C) sums over the labels that occur; NaN where none does."""
    iou = iou_percent(sums)
    number = np.count_nonzero(~np.isnan(iou), axis=-1)
    return np.nansum(iou, axis=-1) / np.where(number, number, np.nan)


def _interval(value: float, samples: np.ndarray) -> Interval:
    # A resample of void images only has no mIoU, and none for any arm.
    samples = samples[~np.isnan(samples)]
    low, high = np.percentile(samples, (2.5, 97.5)) if len(samples) else (np.nan, np.nan)
    if not low - _ROUNDING <= value <= high + _ROUNDING:
        return Interval(value, np.nan, np.nan)
    return Interval(value, min(float(low), value), max(float(high), value))
