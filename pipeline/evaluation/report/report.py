"""The Markdown report of a benchmark: what was measured, and what an arm gains and loses.

It reads the contents of `results.json` and `timings.json` as plain mappings and computes nothing
that needs an image. All metrics are in percent, their differences in points, times in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..arms import MEANING
from .markdown import (
    bold_best,
    cell,
    code,
    table,
)
from .numbers import (
    METRICS,
    class_differences,
    difference,
    is_oracle,
    number,
    seconds,
    signed,
    stages,
    verdict,
)
from .settings_rows import settings_rows

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
_FEW = 30  # images; with fewer the bootstrap knows too little of what could have been drawn
_MOST_PAIRS = 21  # listed one by one: those of seven arms
_DEFINITIONS = """\
- **mIoU**: one confusion matrix over the whole data set, void (255) ignored; the mean over the
  classes that are true or predicted anywhere, as mmsegmentation has it. mAcc and aAcc are mean and
  overall pixel accuracy of the same matrix.
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
    parts += ["## Settings", table(("setting", "value"), settings_rows(results))]

    parts += ["## Result", _result_note(results), _main_table(arms)]
    parts += ["## What it buys", _sentences(results, timings)]
    pairs = results["differences"]
    if pairs:
        note = "Points and 95 % interval, paired over images; one with 0 outside is a gain or loss."
        if len(pairs) > _MOST_PAIRS:
            note += f" Pairs with `{baseline}`; all {len(pairs)} are in results.json."
            pairs = {k: v for k, v in pairs.items() if baseline in k.split(" - ")}
        parts += [
            "## Differences of pairs",
            note,
            table(("pair", *METRICS.values()), _differences(pairs)),
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
        "\n".join(_lost(results, name) for name in arms if name != baseline and not is_oracle(name))
        or "No other method.",
    ]
    if timings:
        parts += [
            "## Time",
            "Median seconds per image, each arm as if it ran alone.",
            table(("stage", *code(timings["arms"])), _times(timings["arms"])),
            f"Machine: {cell(timings.get('machine'))}.",
        ]
    parts += ["## Definitions", _DEFINITIONS.format(resamples=settings["resamples"])]
    parts += ["Parts of an arm's name:", "\n".join(_meanings(arms))]
    return "\n\n".join(parts) + "\n"


def _result_note(results: Mapping) -> str:
    arms, scored = results["arms"], results["images"]["scored"]
    note = "In percent; the best of each column is bold."
    if any(map(is_oracle, arms)):
        note += " Oracles are told parts of the truth and do not compete."
    averaged = {name: arm.get("classes_averaged") for name, arm in arms.items()}
    if len(set(averaged.values())) > 1:
        counts = ", ".join(f"`{name}` {count}" for name, count in averaged.items())
        note += (
            " The arms' mIoU average different numbers of classes, as a class that is predicted "
            f"but never true counts as 0: {counts}."
        )
    if scored < _FEW:
        note += f" **{scored} images are too few for the intervals to mean much.**"
    return note


def _meanings(arms: Mapping[str, Mapping]) -> list[str]:
    used = {part for arm in arms for part in (arm.split("+")[0], *_modifiers(arm))}
    return [f"- `{part}`: {meaning}" for part, meaning in MEANING.items() if part in used]


def _modifiers(arm: str) -> list[str]:
    return [f"+{word}" for word in arm.split("+")[1:]]


def _bold_best(values: Mapping[str, str]) -> list[str]:
    """Cells by arm, the best one bold; oracles do not compete."""
    competing = {arm: text for arm, text in values.items() if not is_oracle(arm)}
    marked = dict(zip(competing, bold_best([*competing.values()]), strict=True))
    return [marked.get(arm, text) for arm, text in values.items()]


def _main_table(arms: Mapping[str, Mapping]) -> str:
    keys = (*METRICS, "mAcc", "aAcc")
    columns = [_bold_best({name: number(arm[key]) for name, arm in arms.items()}) for key in keys]
    for i, arm in enumerate(arms.values()):
        low, high = arm["mIoU_interval"] or (None, None)
        columns[0][i] += f" [{number(low)}, {number(high)}]"
    headings = ("arm", "mIoU [95 % interval]", "boundary IoU", "edge mIoU", "mAcc", "aAcc")
    names = [f"`{arm}`" + " (told the truth)" * is_oracle(arm) for arm in arms]
    return table(headings, zip(names, *columns, strict=True))


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
    others = [name for name in results["arms"] if name != baseline and not is_oracle(name)]
    if not others:
        return f"There is no other method to compare `{baseline}` with."
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
    values = {name: number(arm["per_class"][label], 1) for name, arm in arms.items()}
    return [cell(label), *_bold_best(values)]


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
