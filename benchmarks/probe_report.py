"""The report of `benchmarks/probe.py`: a table per backbone, and what papers report beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.published_probes import PUBLISHED
from pipeline.evaluation.report.numbers import METRICS, number, signed, table
from pipeline.files.atomic import write_atomically, write_json


def write_report(folder: Path, data: Mapping[str, Any]) -> None:
    """Write `report.md` and `results.json`."""
    write_json(folder / "results.json", data)
    write_atomically(folder / "report.md", report(data).encode())


def report(data: Mapping[str, Any]) -> str:
    lines = ["# Linear probes on upsampled features", "", f"    {data['command']}", ""]
    lines += [f"- {key}: {_plain(value)}" for key, value in data["about"].items()]
    for backbone, found in data["backbones"].items():
        lines += ["", f"## {backbone}, weights: {found['weights']}", "", _arms(found["arms"])]
        lines += ["", *_losses(found["arms"])]
    lines += ["", "## What papers report", "", _published()]
    return "\n".join(lines) + "\n"


def _arms(arms: Mapping[str, Any]) -> str:
    header = ["upsampler", "probe"]
    for name in METRICS.values():
        header += [name, "Δ bilinear / own [95 %]"]
    header += ["small objects"]
    rows = []
    for arm, row in arms.items():
        cells = arm.split(" / ")
        for metric in METRICS:
            value = row[metric]
            spread = f" ± {number(value['spread'])}" if value["spread"] is not None else ""
            difference, low, high = value["difference"]
            cells.append(f"{number(value['value'])}{spread}")
            cells.append(f"{signed(difference)} [{signed(low)}, {signed(high)}]")
        small = row["small"]
        rows.append([*cells, f"{number(small['mIoU'])} ({small['objects']})"])
    note = (
        "Percent, of the counts of all seeds added; ± is the standard deviation of the seeds. Edge "
        "mIoU: within 3 px of an outline of the truth. Small objects (or, where a data set does "
        "not tell objects apart, connected regions of a label): mean IoU of those under 32² px, "
        "and how many there are."
    )
    return f"{table(header, rows)}\n\n{note}"


def _losses(arms: Mapping[str, Any]) -> list[str]:
    """The arms that are surely worse than bilinear, by mIoU."""
    worse = [arm for arm, row in arms.items() if (row["mIoU"]["difference"][2] or 0) < 0]
    return [f"Surely below bilinear / own (mIoU): {', '.join(worse) or 'none'}."]


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
