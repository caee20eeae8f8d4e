"""A benchmark's results for people: numbers, differences to the baseline, cells and tables.

`results` and `timings` are the contents of `results.json` and `timings.json`, where null is a
number that does not exist. Metrics are in percent, their differences in points, times in seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..arms import ORACLES

METRICS = {"mIoU": "mIoU", "boundary_IoU": "boundary IoU", "edge_mIoU": "edge mIoU"}


def is_oracle(arm: str) -> bool:
    """Whether an arm is told the truth: no method, and out of competition."""
    return arm in ORACLES


def number(value: float | None, digits: int = 2) -> str:
    """A number for people; – for none."""
    if value is None:
        return "–"
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")  # + 0.0: no −0


def signed(value: float | None, digits: int = 2) -> str:
    """A difference with its sign; 0 has none, – for none."""
    plus = value is not None and round(value, digits) > 0
    return "+" * plus + number(value, digits)


def verdict(low: float | None, high: float | None) -> str:
    """What the interval of a difference says."""
    if low is None or high is None or low <= 0 <= high:
        return "cannot be told apart"
    return "gain" if low > 0 else "loss"


def difference(
    results: Mapping, arm: str, baseline: str, metric: str
) -> tuple[float | None, float | None, float | None]:
    """`arm` minus `baseline` in points, and its 95 % interval: (difference, low, high)."""
    pairs = results["differences"]
    if f"{arm} - {baseline}" in pairs:
        found = pairs[f"{arm} - {baseline}"][metric]
        return found["difference"], found["low"], found["high"]
    found = pairs[f"{baseline} - {arm}"][metric]
    value, low, high = (
        None if found[key] is None else -found[key] for key in ("difference", "high", "low")
    )
    return value, low, high


def class_differences(results: Mapping, arm: str) -> dict[str, float]:
    """Class → points of IoU that `arm` is above the baseline, from best to worst.

    Classes that either of the two has no IoU for are left out.
    """
    base = results["arms"][results["settings"]["baseline"]]["per_class"]
    own = results["arms"][arm]["per_class"]
    both = [name for name in base if None not in (own[name], base[name])]
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


def cell(value: object) -> str:
    """Anything, on one line, in a form that leaves the table whole."""
    if value is None:
        text = "none"
    elif isinstance(value, bool):
        text = "on" if value else "off"
    elif isinstance(value, Mapping | list | tuple):
        names = [f"{key}: " for key in value] if isinstance(value, Mapping) else [""] * len(value)
        values = list(value.values()) if isinstance(value, Mapping) else value
        items = [name + cell(item) for name, item in zip(names, values, strict=True)]
        nested = any(isinstance(item, Mapping | list | tuple) for item in values)
        text = ("; " if nested else ", ").join(items) or "none"
    else:
        text = str(value).replace("|", "\\|")
    return " ".join(text.split())


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    header = list(header)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def bold_best(texts: Mapping[str, str]) -> list[str]:
    """Numbers by arm, the greatest bold unless all are the same; oracles do not compete."""
    values = {
        arm: float(text.replace("−", "-"))
        for arm, text in texts.items()
        if text != "–" and not is_oracle(arm)
    }
    best = max(values.values()) if len(set(values.values())) > 1 else None
    return [
        f"**{text}**" if best is not None and values.get(arm) == best else text
        for arm, text in texts.items()
    ]


def listed(items: Sequence[str]) -> str:
    """ "a, b and c"."""
    return " and ".join(filter(None, (", ".join(items[:-1]), items[-1])))
