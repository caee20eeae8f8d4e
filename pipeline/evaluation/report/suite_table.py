"""The table of a suite: methods and upsamplers × data sets.

OUTPUT/suite.json, OUTPUT/suite.md
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...files.atomic import write_atomically, write_json
from .numbers import cell, number, table


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One number of the table.

    Attributes:
        dataset, method, upsampler: where it stands.
        arm: its name in the benchmark.
        miou: percent; None: not measured, `why` says why.
        images: number scored.
        failed: images that could not be, `id` and `error`.
        published: what the method's authors report, percent; None: nothing for this arm.
        off: it is further from that than models, settings and images explain.
    """

    dataset: str
    method: str
    upsampler: str
    arm: str
    miou: float | None = None
    why: str = ""
    images: int = 0
    failed: list[dict[str, str]] = field(default_factory=list)
    published: float | None = None
    off: bool = False


def write_table(cells: Sequence[Cell], output: Path, *, is_rendered: bool) -> str:
    """Write suite.json and suite.md; returns the latter."""
    text = suite_table(cells, is_rendered=is_rendered)
    write_json(output / "suite.json", {"cells": [dataclasses.asdict(cell) for cell in cells]})
    write_atomically(output / "suite.md", text.encode())
    return text


def suite_table(cells: Sequence[Cell], *, is_rendered: bool) -> str:
    """Methods and upsamplers × data sets in Markdown, with what was published and what is missing.

    Published figures are of photographs: they are left out where rendered scenes stand in.
    """
    datasets = list(dict.fromkeys(cell.dataset for cell in cells))
    found = {(c.method, c.upsampler, c.dataset): c for c in cells}
    rows = []
    for method in dict.fromkeys(c.method for c in cells):
        own = [c for c in cells if c.method == method]
        for upsampler in dict.fromkeys(c.upsampler for c in own):
            line = [found[method, upsampler, dataset] for dataset in datasets]
            shown = [number(c.miou) + "*" * c.off for c in line]
            rows.append((method, upsampler, *shown, _mean([c.miou for c in line])))
            figures = [c.published for c in line]
            if not is_rendered and any(value is not None for value in figures):
                shown = [number(value) for value in figures]
                rows.append((method, f"{upsampler}, published", *shown, _mean(figures)))
    parts = ["# Methods on all data sets", "mIoU in percent; – was not measured, see below."]
    if is_rendered:
        parts.append(
            "**Rendered scenes stand in for the data sets**: they show that everything runs, under "
            "each method's settings, and say nothing about photographs or published figures."
        )
    parts.append(table(("method", "upsampler", *datasets, "mean"), rows))
    if any(c.off for c in cells):
        parts.append(
            "\\* further from the published figure than models, settings and images explain."
        )
    counts = {c.dataset: c.images for c in cells if c.images}
    if counts:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        parts.append(f"Images scored: {listed}.")
    if failed := {c.dataset: len(c.failed) for c in cells if c.failed}:
        listed = ", ".join(f"{name} {count}" for name, count in failed.items())
        parts.append(f"**Images that could not be scored: {listed}.**")
    return "\n\n".join([*parts, *_missing(cells)]) + "\n"


def _missing(cells: Sequence[Cell]) -> list[str]:
    """Why cells are empty: each reason once."""
    reasons: dict[str, list[str]] = {}
    for c in cells:
        if c.why:
            reasons.setdefault(c.why, []).append(f"{c.dataset} {c.method} {c.upsampler}")
    if not reasons:
        return []
    lines = []
    for why, places in reasons.items():
        more = f" and {len(places) - 3} more" if len(places) > 3 else ""
        lines.append(f"- {cell(why)} ({', '.join(places[:3])}{more})")
    return ["Not measured:", "\n".join(lines)]


def _mean(values: Sequence[float | None]) -> str:
    """Of a whole row; – if anything is missing."""
    known = [value for value in values if value is not None]
    return number(sum(known) / len(known) if known and len(known) == len(values) else None)
