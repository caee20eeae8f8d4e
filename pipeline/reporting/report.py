"""The Markdown report of a benchmark: what was measured, and what an arm gains and loses.

It reads the contents of `results.json` and `timings.json` as plain mappings and computes nothing
that needs an image. All metrics are in percent, their differences in points, times in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .markdown import bold_best, cell, code, table
from .numbers import (
    METRICS,
    class_differences,
    difference,
    number,
    seconds,
    signed,
    stages,
    verdict,
)

_PROMPTS = {  # key of "prompts": (heading, decimals)
    "per_image": ("prompts per image", 1),
    "reduction": ("fewer than a grid of 1024, %", 1),
    "points": ("points", 0),
    "points_on_class": ("points on an object of the class, %", 1),
    "masks": ("masks", 0),
    "fallbacks": ("masks that kept the region, %", 1),
    "predicted_iou": ("IoU as SAM 2 predicts it, %", 1),
    "true_iou": ("true IoU, %", 1),
    "correlation": ("correlation of the two", 2),
}
_LONGEST = 600  # characters of a setting; longer word lists are cut, and say so
_DEFINITIONS = """\
- **mIoU**: one confusion matrix over the whole data set, void (255) ignored; the mean over the
  classes that occur at all. mAcc and aAcc are mean and overall pixel accuracy of the same matrix.
- **boundary IoU**: Cheng et al. 2021; IoU of the rims of truth and prediction: their pixels within
  d of their own outline, d = 2 % of the image's diagonal; mean over the classes.
- **edge mIoU**: mIoU of only the pixels within 3 px of an outline of the truth.
- **object mIoU**: the predicted region of an object is the connected components of its class that
  touch it, minus other objects of that class; its IoU with the object, averaged over the objects.
  **recall**: share of an object's pixels that got its class, averaged likewise; **found**: share
  of the objects with an IoU of at least 50 %.
- **interval**: percentile bootstrap over images, {resamples} resamples, 95 %. Each stands for
  itself: of 20 pairs that are equally good, one is expected to look different by chance."""


def markdown(results: Mapping, timings: Mapping) -> str:
    """The report. Empty `timings` leave out the table of times.

    Args:
        results: contents of `results.json`.
        timings: contents of `timings.json`, or an empty mapping.
    """
    settings, arms = results["settings"], results["arms"]
    images, baseline = results["images"], settings["baseline"]
    # A label that the protocol leaves out (background) is in no arm's classes.
    labels = [x for x in results["labels"] if x in arms[baseline]["per_class"]]
    failed = images["failed"]
    parts = [f"# PASCAL VOC benchmark: {cell(settings['protocol']['name'])}"]
    if failed:
        parts += [
            f"**{len(failed)} of {images['asked']} images could not be scored; every number below "
            "is without them:**",
            "\n".join(f"- `{cell(f['id'])}`: {cell(f['error'])}" for f in failed),
        ]
    parts += ["## Settings", table(("setting", "value"), _settings(results))]

    parts += ["## Result", "In percent; the best of each column is bold.", _main_table(arms)]
    parts += ["## What it buys", _sentences(results, timings)]
    if results["differences"]:
        parts += [
            "## Differences of every pair",
            "Points and 95 % interval, paired over images; one with 0 outside is a gain or loss.",
            table(("pair", *METRICS.values()), _differences(results["differences"])),
        ]
    if any(arm["sizes"] for arm in arms.values()):
        parts += [
            "## By size of the object",
            "object mIoU / recall / found, in percent; – is a size without objects.",
            _size_table(arms),
        ]
    else:
        parts += ["## By size of the object", "Not measured: the data set has no object labels."]
    prompted = {name: arm["prompts"] for name, arm in arms.items() if arm.get("prompts")}
    if prompted:
        rows = [
            (f"`{name}`", *(number(values[key], digits) for key, (_, digits) in _PROMPTS.items()))
            for name, values in prompted.items()
        ]
        headings = [heading for heading, _ in _PROMPTS.values()]
        parts += ["## Prompts and SAM 2's masks", table(("arm", *headings), rows)]
    parts += [
        "## By class",
        "IoU in percent; the best of each row is bold, – is a class that does not occur.",
        table(("class", *code(arms)), [_class_row(label, arms) for label in labels]),
        f"### The classes lost against `{baseline}`",
        "\n".join(_lost(results, name) for name in arms if name != baseline) or "No other arm.",
    ]
    if timings:
        parts += [
            "## Time",
            "Median seconds per image, each arm as if it ran alone.",
            table(("stage", *code(timings["arms"])), _times(timings["arms"])),
            f"Machine: {cell(timings.get('machine'))}.",
        ]
    parts += ["## Definitions", _DEFINITIONS.format(resamples=settings["resamples"])]
    return "\n\n".join(parts) + "\n"


def _settings(results: Mapping) -> list[tuple[str, str]]:
    images = results["images"]
    counts = f"{images['listed']} listed, {images['asked']} asked for, {images['scored']} scored"
    if images["asked"] < images["listed"]:
        counts += " (a part of the split)"
    rows = [("images", counts)]
    for name, value in results["settings"].items():
        if name == "protocol":
            value = {**value, "words": _words(value)}
            rows += [(f"protocol: {field}", _setting(v)) for field, v in value.items()]
        elif name == "arms":
            rows += _arm_settings(value)
        else:
            rows.append((cell(name), _setting(value)))
    return [*rows, ("versions", cell(results["versions"])), ("commit", cell(results["commit"]))]


def _arm_settings(arms: Mapping[str, Mapping]) -> list[tuple[str, str]]:
    """What all dense maps and all final masks have in common, then what is each arm's own."""
    own = {name: {} for name in arms}
    rows = []
    for part in ("dense", "final"):
        found = {name: arm[part] for name, arm in arms.items() if arm.get(part)}
        first = next(iter(found.values()), {})
        shared = {k: v for k, v in first.items() if all(f[k] == v for f in found.values())}
        if shared:
            rows.append((f"all {part} maps", cell(shared)))
        for name, values in found.items():
            own[name] |= {k: v for k, v in values.items() if k not in shared}
    for name, arm in arms.items():
        own[name] |= {k: v for k, v in arm.items() if k not in ("dense", "final")}
        if own[name]:
            rows.append((f"arm {cell(name)}", cell(own[name])))
    return rows


def _words(protocol: Mapping) -> Mapping[str, Sequence[str]] | Sequence[Sequence[str]]:
    """The words by the name of their class."""
    names, words = protocol.get("class_names"), protocol["words"]
    return dict(zip(names, words, strict=True)) if names else words


def _setting(value: object) -> str:
    text = cell(value)
    if len(text) <= _LONGEST:
        return text
    return f"{text[:_LONGEST].rstrip()} … ({len(text)} characters; whole in results.json)"


def _main_table(arms: Mapping[str, Mapping]) -> str:
    keys = (*METRICS, "mAcc", "aAcc")
    columns = [bold_best([number(arm[key]) for arm in arms.values()]) for key in keys]
    for i, arm in enumerate(arms.values()):
        low, high = arm["mIoU_interval"] or (None, None)
        columns[0][i] += f" [{number(low)}, {number(high)}]"
    headings = ("arm", "mIoU [95 % interval]", "boundary IoU", "edge mIoU", "mAcc", "aAcc")
    return table(headings, zip(code(arms), *columns, strict=True))


def _differences(pairs: Mapping[str, Mapping]) -> list[tuple[str, ...]]:
    rows = []
    for pair, found in pairs.items():
        cells = []
        for metric in METRICS:
            value, low, high = (found[metric][key] for key in ("difference", "low", "high"))
            interval = f"[{signed(low)}, {signed(high)}]"
            cells.append(f"{signed(value)} {interval} {verdict(low, high)}")
        rows.append((f"`{pair}`", *cells))
    return rows


def _sentences(results: Mapping, timings: Mapping) -> str:
    baseline = results["settings"]["baseline"]
    others = [name for name in results["arms"] if name != baseline]
    if not others:
        return f"`{baseline}` is the only arm; there is nothing to compare it with."
    lines = [f"- {_sentence(results, timings, name)}" for name in others]
    intro = f"Against `{baseline}`, in points (95 % interval):"
    return "\n".join((intro, "", *lines))


def _sentence(results: Mapping, timings: Mapping, arm: str) -> str:
    """What one arm gains and loses against the baseline, in words."""
    baseline = results["settings"]["baseline"]
    found: dict[str, list[str]] = {"gain": [], "loss": [], "cannot be told apart": []}
    for metric, name in METRICS.items():
        value, low, high = difference(results, arm, baseline, metric)
        kind = verdict(low, high)
        amount = signed(value) if kind == "cannot be told apart" else number(abs(value))
        found[kind].append(f"{amount} of {name} ({signed(low)} to {signed(high)})")
    verbs = ("gains", "loses", "cannot be told apart by")
    parts = [
        f"{verb} {_listed(items)}"
        for verb, items in zip(verbs, found.values(), strict=True)
        if items
    ]
    classes = class_differences(results, arm)
    better = [name for name, value in classes.items() if value > 0]
    worse = [name for name, value in classes.items() if value < 0]
    most, least = (
        f" ({names[end]} {signed(classes[names[end]], 1)})" if names else ""
        for names, end in ((better, 0), (worse, -1))
    )
    parts.append(
        f"is better in {len(better)}{most} and worse in {len(worse)}{least} "
        f"of {len(classes)} classes"
    )
    times = timings.get("arms", {})
    if arm in times and baseline in times:
        own, base = (number(seconds(times, name)) for name in (arm, baseline))
        parts.append(
            "takes as long" if own == base else f"takes {own} s per image instead of {base} s"
        )
    return f"**`{arm}`** {'; '.join(parts)}."


def _listed(items: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(items[:-1]), items[-1])))


def _size_table(arms: Mapping[str, Mapping]) -> str:
    measured = {name: arm["sizes"] for name, arm in arms.items() if arm["sizes"]}
    bins = next(iter(measured.values()))
    header = [f"{name} ({found['objects']} objects)" for name, found in bins.items()]
    rows = [
        (
            f"`{arm}`",
            *(
                " / ".join(number(sizes[b][k], 1) for k in ("mIoU", "recall", "found"))
                for b in bins
            ),
        )
        for arm, sizes in measured.items()
    ]
    return table(("arm", *header), rows)


def _class_row(label: str, arms: Mapping[str, Mapping]) -> list[str]:
    values = [number(arm["per_class"][label], 1) for arm in arms.values()]
    return [cell(label), *bold_best(values)]


def _lost(results: Mapping, arm: str) -> str:
    lost = {name: value for name, value in class_differences(results, arm).items() if value < 0}
    worst = sorted(lost.items(), key=lambda item: item[1])
    return f"- `{arm}`: " + (", ".join(f"{n} {signed(v, 1)}" for n, v in worst) or "none")


def _times(times: Mapping[str, Mapping]) -> list[list[str]]:
    rows = [
        [cell(stage), *(number(arm.get(stage, {}).get("median"), 3) for arm in times.values())]
        for stage in stages(times)
    ]
    totals = [f"**{number(seconds(times, arm), 3)}**" for arm in times]
    return [*rows, ["**sum**", *totals]]
