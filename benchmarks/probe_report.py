"""The report of `benchmarks/probe.py`: a table per backbone, and what papers report beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.published_probes import PUBLISHED
from pipeline.evaluation.report.numbers import METRICS, number, signed, table
from pipeline.files.atomic import write_atomically, write_json

NOTE = (
    "Percent, of the counts of all seeds added; ± is the standard deviation of the seeds, Δ the "
    "difference to bilinear by the same probe. Edge mIoU: within 3 px of an outline of the truth. "
    "Small objects (or, where a data set does not tell objects apart, connected regions of a "
    "label): mean IoU of those under 32² px, and how many there are."
)


def write_report(folder: Path, data: Mapping[str, Any]) -> None:
    """Write `report.md` and `results.json`."""
    write_json(folder / "results.json", data)
    write_atomically(folder / "report.md", report(data).encode())


def report(data: Mapping[str, Any]) -> str:
    lines = ["# Linear probes on upsampled features", "", f"    {data['command']}", ""]
    lines += [f"- {key}: {_plain(value)}" for key, value in data["about"].items()]
    for backbone, found in data["backbones"].items():
        own, low_res = found["own"], found["low-res"]
        lines += ["", f"## {backbone}, weights: {found['weights']}", ""]
        lines += [_table({"own": own, "low-res": low_res}), "", NOTE, ""]
        lines += [_losses(own, "own"), _losses(low_res, "low-res")]
    lines += ["", "## What papers report", "", _published()]
    return "\n".join(lines) + "\n"


def _table(probes: Mapping[str, Mapping[str, Any]]) -> str:
    """A row per upsampler and probe."""
    header = ["upsampler", "probe"]
    for name in METRICS.values():
        header += [name, "Δ bilinear [95 %]"]
    rows = [
        [upsampler, probe, *_cells(arms[upsampler])]
        for upsampler in probes["own"]
        for probe, arms in probes.items()
    ]
    return table([*header, "small objects"], rows)


def _cells(row: Mapping[str, Any]) -> list[str]:
    cells = []
    for metric in METRICS:
        value = row[metric]
        spread = f" ± {number(value['spread'])}" if value["spread"] is not None else ""
        difference, low, high = value["difference"]
        cells.append(f"{number(value['value'])}{spread}")
        cells.append(f"{signed(difference)} [{signed(low)}, {signed(high)}]")
    return [*cells, f"{number(row['small']['mIoU'])} ({row['small']['objects']})"]


def _losses(arms: Mapping[str, Any], probe: str) -> str:
    worse = [name for name, row in arms.items() if (row["mIoU"]["difference"][2] or 0) < 0]
    return f"- surely below bilinear, {probe} probe, mIoU: {', '.join(worse) or 'none'}"


def _published() -> str:
    names = list(dict.fromkeys(name for row in PUBLISHED for name in row.values))
    header = ["data", "backbone", "view", *names, "source"]
    rows = [
        [row.data, row.backbone, row.view, *(number(row.values.get(n)) for n in names), row.source]
        for row in PUBLISHED
    ]
    return f"mIoU, own probe unless said otherwise.\n\n{table(header, rows)}"


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
