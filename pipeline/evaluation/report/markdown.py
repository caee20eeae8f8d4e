"""Cells and tables of Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from .numbers import missing


def cell(value: object) -> str:
    """Anything, on one line, in a form that leaves the table whole."""
    if missing(value):
        text = "none"
    elif isinstance(value, bool):
        text = "on" if value else "off"
    elif isinstance(value, Mapping | list | tuple):
        mapping = isinstance(value, Mapping)
        items = [f"{k}: {cell(v)}" for k, v in value.items()] if mapping else map(cell, value)
        nested = any(
            isinstance(v, Mapping | list | tuple) for v in (value.values() if mapping else value)
        )
        text = ("; " if nested else ", ").join(items) or "none"
    else:
        text = str(value).replace("|", "\\|")
    return " ".join(text.split())


def code(names: Iterable[str]) -> list[str]:
    return [f"`{name}`" for name in names]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def bold_best(texts: Sequence[str]) -> list[str]:
    """The texts with the greatest number bold, unless all are the same."""
    values = [math.nan if text == "–" else float(text.replace("−", "-")) for text in texts]
    known = [value for value in values if not math.isnan(value)]
    if len(set(known)) < 2:
        return list(texts)
    pairs = zip(texts, values, strict=True)
    return [f"**{text}**" if value == max(known) else text for text, value in pairs]
