"""Plots of a benchmark's results as PNG files; the same numbers give the same bytes.

Arms are told apart by their names beside the bars, the baseline is grey. Colours are of Okabe and
Ito's palette, which colour-blind people tell apart.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...files.atomic import write_atomically
from .numbers import METRICS, class_differences, is_oracle, number, signed, stages

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GREY, BLUE, VERMILLION, PALE = "#9a9ca1", "#0072b2", "#d55e00", "#a6cee3"
_STAGES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#9a9ca1")
_INK = "#1c1c1e"
_DPI = 110
_ROW = 0.3  # inches per bar
_PANELS = 4  # side by side


def save_plots(folder: Path, results: Mapping, timings: Mapping) -> list[Path]:
    """Draw what there are numbers for and return the files, in this order.

    `arms.png` (metrics of every arm), `classes.png` (each class against the baseline, if there are
    two arms), `sizes.png` (if objects were measured), `times.png` (if `timings` has arms).
    `results` and `timings` are as in their files; the folder is made if missing.

    Raises:
        OSError: a file cannot be written.
    """
    figures = {"arms.png": _arms(results)}
    if len(results["arms"]) > 1:
        figures["classes.png"] = _classes(results)
    if any(arm["sizes"] for arm in results["arms"].values()):
        figures["sizes.png"] = _sizes(results)
    if timings.get("arms"):
        figures["times.png"] = _times(timings["arms"])
    for name, figure in figures.items():
        data = io.BytesIO()
        figure.savefig(data, format="png", dpi=_DPI, metadata={"Software": None})
        write_atomically(folder / name, data.getvalue())
    return [folder / name for name in figures]


def _figure(width: float, height: float, title: str = "", **options: Any) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    if title:
        figure.suptitle(title, **options)
    return figure


def _compared(results: Mapping, width: float, height: float) -> Figure:
    """A figure of bars of all arms, with a line that says what their colours mean."""
    note = f"Grey bar and dotted line: the baseline, {results['settings']['baseline']}"
    if any(map(is_oracle, results["arms"])):
        note += ". Pale bars: oracles, told parts of the truth"
    return _figure(width, height, note, fontsize=10, x=0.01, ha="left")


def _arms(results: Mapping) -> Figure:
    arms = results["arms"]
    figure = _compared(results, 13, 1.6 + _ROW * len(arms))
    panels = figure.subplots(1, len(METRICS), sharey=True)
    for axes, (metric, name) in zip(panels, METRICS.items(), strict=True):
        values = {arm: found[metric] for arm, found in arms.items()}
        intervals, title = {}, f"{name}, %"
        if metric == "mIoU":
            intervals = {arm: found["mIoU_interval"] for arm, found in arms.items()}
            title += " (line: 95 % interval)"
        _bars(axes, values, results["settings"]["baseline"], intervals)
        axes.set_title(title, loc="left", fontsize=11)
    return figure


def _bars(
    axes: Axes,
    values: Mapping[str, float | None],
    baseline: str,
    intervals: Mapping[str, Sequence[float | None]],
) -> None:
    """One bar per arm, its number behind it, a dotted line where the baseline ends."""
    ends = []
    for y, (arm, value) in enumerate(values.items()):
        end = value or 0.0
        color = GREY if arm == baseline else PALE if is_oracle(arm) else BLUE
        axes.barh(y, end, height=0.72, color=color)
        low, high = intervals.get(arm) or (None, None)
        if low is not None and high is not None:
            axes.plot([low, high], [y, y], color=_INK, linewidth=1.6, solid_capstyle="butt")
            end = max(end, high)
        ends.append(end)
        _write(axes, end, y, "not measured" if value is None else number(value, 1))
    base = values[baseline]
    if base is not None:
        axes.axvline(base, color=_INK, linewidth=1, linestyle=":", zorder=1.5)
    axes.set_xlim(0, max(ends) * 1.17 or 1)
    _rows(axes, values)


def _classes(results: Mapping) -> Figure:
    baseline = results["settings"]["baseline"]
    differences = {
        arm: class_differences(results, arm) for arm in results["arms"] if arm != baseline
    }
    columns = min(len(differences), _PANELS)
    rows = math.ceil(len(differences) / columns)
    classes = max(len(found) for found in differences.values())
    title = f"IoU of each class against {baseline}, points"
    figure = _figure(max(3.6 * columns, 6), rows * (1.1 + 0.2 * classes) + 0.5, title, fontsize=12)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    values = [value for found in differences.values() for value in found.values()]
    low, high = min([0, *values]), max([0, *values])
    room = 0.2 * (high - low) or 1  # for the numbers
    for axes, (arm, found) in zip(panels, differences.items(), strict=False):
        for y, value in enumerate(found.values()):
            axes.barh(y, value, height=0.75, color=BLUE if value > 0 else VERMILLION)
            _write(axes, value, y, signed(value, 1), left=value < 0, size=7.5)
        axes.axvline(0, color=_INK, linewidth=1)
        axes.set_xlim(low - room, high + room)
        _rows(axes, found, fontsize=8.5)
        axes.set_ylim(classes - 0.4, -0.6)
        # An arm's name on lines that a narrow panel holds, broken after a +.
        lines = textwrap.wrap(arm.replace("+", "+ "), 30)
        better, worse = (sum(sign * v > 0 for v in found.values()) for sign in (1, -1))
        counts = f"better in {better}, worse in {worse}"
        axes.set_title("\n".join([*(line.replace(" ", "") for line in lines), counts]), fontsize=10)
        axes.tick_params(axis="x", labelbottom=True)
    for axes in panels[len(differences) :]:
        axes.set_axis_off()
    return figure


def _sizes(results: Mapping) -> Figure:
    arms = {name: arm["sizes"] for name, arm in results["arms"].items() if arm["sizes"]}
    bins = next(iter(arms.values()))
    figure = _compared(results, 2.2 + 2.9 * len(bins), 2 * (1.1 + _ROW * len(arms)))
    panels = figure.subplots(2, len(bins), sharey=True, sharex=True, squeeze=False)
    for row, key, name in zip(
        panels, ("mIoU", "recall"), ("object mIoU, %", "recall, %"), strict=True
    ):
        row[0].set_ylabel(name, fontsize=11)
        for axes, size in zip(row, bins, strict=True):
            values = {arm: sizes[size][key] for arm, sizes in arms.items()}
            _bars(axes, values, results["settings"]["baseline"], {})
            axes.set_xlim(0, 117)
    for axes, (size, found) in zip(panels[0], bins.items(), strict=True):
        axes.set_title(f"{size}\n{found['objects']} objects", fontsize=10)
    return figure


def _times(times: Mapping[str, Mapping]) -> Figure:
    order = stages(times)
    rows = math.ceil(len(order) / 6)
    columns = math.ceil(len(order) / rows)
    figure = _figure(11, 1.5 + _ROW * len(times) + 0.2 * rows)
    axes = figure.subplots()
    ends = [0.0] * len(times)
    for i, stage in enumerate(order):
        widths = [arm.get(stage, {}).get("median", 0.0) for arm in times.values()]
        axes.barh(
            range(len(times)),
            widths,
            left=ends,
            height=0.72,
            label=stage,
            color=_STAGES[i % len(_STAGES)],
            hatch="" if i < len(_STAGES) else "///",
            edgecolor="white",
            linewidth=0.6,
        )
        ends = [end + width for end, width in zip(ends, widths, strict=True)]
    for y, end in enumerate(ends):
        _write(axes, end, y, f"{number(end)} s")
    axes.set_xlim(0, max(ends) * 1.12 or 1)
    _rows(axes, times)
    axes.set_title("Seconds per image (medians), each arm as if it ran alone", loc="left")
    # Legends are filled column by column; these are to be read row by row.
    handles = [handle for i in range(columns) for handle in axes.containers[i::columns]]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=9
    )
    return figure


def _write(
    axes: Axes, x: float, y: float, text: str, *, left: bool = False, size: float = 9
) -> None:
    axes.annotate(
        text,
        (x, y),
        xytext=(-4 if left else 4, 0),
        textcoords="offset points",
        ha="right" if left else "left",
        va="center",
        fontsize=size,
        color=_INK,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
    )


def _rows(axes: Axes, names: Collection[str], **letters: Any) -> None:
    """A name by every bar, and none of the ink that says nothing."""
    axes.set_yticks(range(len(names)), list(names), **letters)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.grid(True, color="#e4e5e8", linewidth=0.8)
    axes.set_axisbelow(True)
