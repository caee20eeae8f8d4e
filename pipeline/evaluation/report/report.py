"""The Markdown report of a benchmark: what was measured, and what an arm gains and loses.

It reads the contents of `results.json` and `timings.json` as plain mappings and computes nothing
that needs an image. All metrics are in percent, their differences in points, times in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..arms import meanings
from ..published import warning
from .numbers import (
    METRICS,
    bold_best,
    cell,
    class_differences,
    difference,
    is_oracle,
    listed,
    number,
    seconds,
    signed,
    stages,
    table,
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
_FEW = 30  # images; with fewer the bootstrap knows too little of what could have been drawn
_MOST_PAIRS = 21  # listed one by one: those of seven arms
_LONGEST = 600  # characters of a setting; longer word lists are cut, and say so
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
    failed, baseline = results["images"]["failed"], settings["baseline"]
    data_set = settings.get("dataset", "PASCAL VOC")
    parts = [f"# {cell(data_set)} benchmark: {cell(settings['protocol']['name'])}"]
    if failed:
        parts += [
            f"**{len(failed)} of {results['images']['asked']} images could not be scored; every "
            "number below is without them:**",
            "\n".join(f"- `{cell(f['id'])}`: {cell(f['error'])}" for f in failed),
        ]
    parts += ["## Settings", table(("setting", "value"), _settings(results))]
    parts += ["## Result", _result_note(results), _main_table(arms)]
    parts += _published(results.get("published", ()))
    others = [name for name in arms if name != baseline and not is_oracle(name)]
    parts += ["## What it buys", _sentences(results, timings, others)]
    parts += _differences(results["differences"], baseline)
    parts += ["## By size of the object", *_sizes(arms)]
    parts += _prompts(arms)
    parts += [
        "## By class",
        "IoU in percent; the best of each row is bold, – is a class that does not occur.",
        table(("class", *map(_code, arms)), _classes(results)),
        f"### The classes lost against `{baseline}`",
        "\n".join(_lost(results, name) for name in others) or "No other method.",
    ]
    if timings:
        parts += [
            "## Time",
            "Median seconds per image, each arm as if it ran alone.",
            table(("stage", *map(_code, timings["arms"])), _times(timings["arms"])),
            f"Machine: {cell(timings.get('machine'))}.",
        ]
    parts += ["## Definitions", _DEFINITIONS.format(resamples=settings["resamples"])]
    words = {part for arm in arms for part in arm.replace("+", " +").split()}
    told = [f"- `{word}`: {text}" for word, text in meanings().items() if word in words]
    return "\n\n".join([*parts, "Parts of an arm's name:", "\n".join(told)]) + "\n"


def _code(name: str) -> str:
    return f"`{name}`"


def _settings(results: Mapping) -> list[tuple[str, str]]:
    """Name and value of every setting of the run and of its arms."""
    images = results["images"]
    official = images.get("official")
    counts = f"{images['listed']} listed, {images['asked']} asked for, {images['scored']} scored"
    if images["asked"] < images["listed"]:
        counts += " (a part of the split)"
    if official and images["listed"] != official:
        counts += f" – **the official split has {official}**"
    rows = [("images", counts)]
    for name, value in results["settings"].items():
        if name == "protocol":
            names, words = value.get("class_names"), value["words"]
            value = {**value, "words": dict(zip(names, words, strict=True)) if names else words}
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


def _setting(value: object) -> str:
    text = cell(value)
    if len(text) <= _LONGEST:
        return text
    return f"{text[:_LONGEST].rstrip()} … ({len(text)} characters; whole in results.json)"


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


def _main_table(arms: Mapping[str, Mapping]) -> str:
    keys = (*METRICS, "mAcc", "aAcc")
    columns = [bold_best({name: number(arm[key]) for name, arm in arms.items()}) for key in keys]
    for i, arm in enumerate(arms.values()):
        low, high = arm["mIoU_interval"] or (None, None)
        columns[0][i] += f" [{number(low)}, {number(high)}]"
    headings = ("arm", "mIoU [95 % interval]", "boundary IoU", "edge mIoU", "mAcc", "aAcc")
    names = [_code(arm) + " (told the truth)" * is_oracle(arm) for arm in arms]
    return table(headings, zip(names, *columns, strict=True))


def _published(entries: Sequence[Mapping]) -> list[str]:
    if not entries:
        return []
    rows = []
    for entry in entries:
        measured, figure = entry["measured"], entry["published"]
        off = signed(None if measured is None else measured - figure)
        differs = "; ".join(entry["differs"]) or "nothing that is known"
        shown = (_code(entry["arm"]), number(figure), number(measured), off, cell(entry["source"]))
        rows.append((*shown, cell(differs)))
    headings = ("arm", "published mIoU", "measured", "difference", "source", "what differs here")
    warnings = [f"**{cell(warning(entry))}.**" for entry in entries if entry["off"]]
    return ["## Published under this protocol", *warnings, table(headings, rows)]


def _sentences(results: Mapping, timings: Mapping, others: Sequence[str]) -> str:
    baseline = results["settings"]["baseline"]
    if not others:
        return f"There is no other method to compare `{baseline}` with."
    lines = [f"- {_sentence(results, timings, name)}" for name in others]
    return "\n".join((f"Against `{baseline}`, in points (95 % interval):", "", *lines))


def _sentence(results: Mapping, timings: Mapping, arm: str) -> str:
    """What one arm gains and loses against the baseline, in words."""
    baseline = results["settings"]["baseline"]
    found: dict[str, list[str]] = {"gain": [], "loss": [], "cannot be told apart": []}
    for metric, name in METRICS.items():
        value, low, high = difference(results, arm, baseline, metric)
        kind = verdict(low, high)
        amount = signed(value)
        if kind != "cannot be told apart":  # the verb says which
            amount = amount.lstrip("+−")
        found[kind].append(f"{amount} of {name} ({signed(low)} to {signed(high)})")
    verbs = zip(("gains", "loses", "cannot be told apart by"), found.values(), strict=True)
    parts = [f"{verb} {listed(items)}" for verb, items in verbs if items]
    classes = class_differences(results, arm)
    better = [f"{name} {signed(value, 1)}" for name, value in classes.items() if value > 0]
    worse = [f"{name} {signed(value, 1)}" for name, value in classes.items() if value < 0]
    most, least = (f" ({names[0]})" if names else "" for names in (better, worse[::-1]))
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


def _differences(pairs: Mapping[str, Mapping], baseline: str) -> list[str]:
    if not pairs:
        return []
    note = "Points and 95 % interval, paired over images; one with 0 outside is a gain or loss."
    if len(pairs) > _MOST_PAIRS:
        note += f" Pairs with `{baseline}`; all {len(pairs)} are in results.json."
        pairs = {k: v for k, v in pairs.items() if baseline in k.split(" - ")}
    rows = []
    for pair, found in pairs.items():
        cells = [_code(pair)]
        for metric in METRICS:
            value, low, high = (found[metric][key] for key in ("difference", "low", "high"))
            cells.append(f"{signed(value)} [{signed(low)}, {signed(high)}] {verdict(low, high)}")
        rows.append(cells)
    return ["## Differences of pairs", note, table(("pair", *METRICS.values()), rows)]


def _sizes(arms: Mapping[str, Mapping]) -> list[str]:
    measured = {name: arm["sizes"] for name, arm in arms.items() if arm["sizes"]}
    if not measured:
        return ["Not measured: the data set has no object labels."]
    bins = next(iter(measured.values()))
    header = [f"{name} ({found['objects']} objects)" for name, found in bins.items()]
    keys = ("mIoU", "recall", "found")
    rows = [
        (_code(arm), *(" / ".join(number(sizes[size][key], 1) for key in keys) for size in bins))
        for arm, sizes in measured.items()
    ]
    note = "object mIoU / recall / found, in percent; – is a size without objects."
    return [note, table(("arm", *header), rows)]


def _prompts(arms: Mapping[str, Mapping]) -> list[str]:
    prompted = {name: arm["prompts"] for name, arm in arms.items() if arm.get("prompts")}
    if not prompted:
        return []
    rows = [
        (_code(name), *(number(values[key], digits) for key, (_, digits) in _PROMPTS.items()))
        for name, values in prompted.items()
    ]
    headings = [heading for heading, _ in _PROMPTS.values()]
    return ["## Prompts and SAM 2's masks", table(("arm", *headings), rows)]


def _classes(results: Mapping) -> list[list[str]]:
    """IoU of every class and arm; a label that the protocol leaves out (background) has no row."""
    arms = {name: arm["per_class"] for name, arm in results["arms"].items()}
    averaged = arms[results["settings"]["baseline"]]
    return [
        [cell(label), *bold_best({name: number(found[label], 1) for name, found in arms.items()})]
        for label in results["labels"]
        if label in averaged
    ]


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
