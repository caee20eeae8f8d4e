"""Reading a benchmark's results for people: numbers, differences to the baseline, stages.

`results` and `timings` are the contents of `results.json` and `timings.json`. Metrics are in
percent, their differences in points, times in seconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..arms import ORACLES

METRICS = {"mIoU": "mIoU", "boundary_IoU": "boundary IoU", "edge_mIoU": "edge mIoU"}


def is_oracle(arm: str) -> bool:
    """Whether an arm is told the truth: no method, and out of competition."""
    return arm in ORACLES


def missing(value: object) -> bool:
    """Whether a number is null or NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def number(value: float | None, digits: int = 2) -> str:
    """A number for people; – for null and NaN."""
    return "–" if missing(value) else f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def signed(value: float | None, digits: int = 2) -> str:
    """A difference with its sign; 0 has none, – for null and NaN."""
    if missing(value) or not round(value, digits):
        return number(value, digits)
    return f"{value:+.{digits}f}".replace("-", "−")


def verdict(low: float | None, high: float | None) -> str:
    """What the interval of a difference says."""
    if missing(low) or missing(high) or low <= 0 <= high:
        return "cannot be told apart"
    return "gain" if low > 0 else "loss"


def difference(
    results: Mapping, arm: str, baseline: str, metric: str
) -> tuple[float | None, float | None, float | None]:
    """`arm` minus `baseline` in points, and its 95 % interval: (difference, low, high).

    Raises:
        ValueError: `results` has no such pair.
    """
    pairs = results["differences"]
    if f"{arm} - {baseline}" in pairs:
        found = pairs[f"{arm} - {baseline}"][metric]
        return found["difference"], found["low"], found["high"]
    if f"{baseline} - {arm}" in pairs:
        found = pairs[f"{baseline} - {arm}"][metric]
        values = (found["difference"], found["high"], found["low"])
        return tuple(None if missing(value) else -value for value in values)
    raise ValueError(f"no difference of {arm!r} and {baseline!r}; valid pairs: {', '.join(pairs)}")


def class_differences(results: Mapping, arm: str) -> dict[str, float]:
    """Class → points of IoU that `arm` is above the baseline, from best to worst.

    Classes that either of the two has no IoU for are left out.
    """
    base = results["arms"][results["settings"]["baseline"]]["per_class"]
    own = results["arms"][arm]["per_class"]
    both = [name for name in base if not (missing(own[name]) or missing(base[name]))]
    found = {name: round(own[name] - base[name], 6) for name in both}
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def stages(times: Mapping[str, Mapping]) -> list[str]:
    """All stages of the arms, `timings["arms"]`, in running order."""
    order: list[str] = []
    for arm in times.values():
        place = 0
        for stage in arm:
            if stage not in order:
                order.insert(place, stage)
            place = order.index(stage) + 1
    return order


def seconds(times: Mapping[str, Mapping], arm: str) -> float:
    """Sum of the medians of an arm's stages."""
    return sum(stage["median"] for stage in times[arm].values())
