"""What was published under a protocol, beside what was measured under it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any

from models.protocols import PROTOCOLS
from models.published import FIGURES, TOLERANCE, Figure

PRESET = "vit-b16"  # the models that all figures are of


def published(settings: Mapping[str, Any], images: Mapping[str, Any], arms: Mapping) -> list[dict]:
    """The published figures of a run's protocol.

    Args:
        settings: `preset` and `protocol` of the run, as in results.json.
        images: how many were listed, scored, failed, and are `official`.
        arms: summaries by name.

    Returns:
        Per figure: `arm`, `published` and `measured` mIoU in percent (None: the arm was not run),
        `source`, `differs` (what was otherwise than published; empty where nothing is known to be)
        and `off`: nothing was, and yet the two differ by more than `TOLERANCE` points.
    """
    found = []
    for figure in FIGURES:
        if figure.protocol != settings["protocol"]["name"]:
            continue
        measured = arms.get(figure.arm, {}).get("mIoU")
        differs = list(_differences(figure, settings, images))
        off = measured is not None and abs(measured - figure.miou) > TOLERANCE and not differs
        found.append(
            {
                "arm": figure.arm,
                "published": figure.miou,
                "measured": measured,
                "source": figure.source,
                "differs": differs,
                "off": off,
            }
        )
    return found


def _differences(
    figure: Figure, settings: Mapping[str, Any], images: Mapping[str, Any]
) -> Iterable[str]:
    """What was otherwise than published, one by one."""
    if settings["preset"] != PRESET:
        yield f"models: {settings['preset']}, not {PRESET}"
    own = json.loads(json.dumps(dataclasses.asdict(PROTOCOLS[figure.protocol])))
    given = json.loads(json.dumps(settings["protocol"]))
    yield from (f"protocol: {name}" for name in own if own[name] != given.get(name))
    if images["official"] is None:
        yield "images: not the data set's own"
    elif images["scored"] != images["official"]:
        yield f"images: {images['scored']} of {images['official']}"
    if figure.differs:
        yield figure.differs


def warning(entry: Mapping[str, Any]) -> str:
    """One line about an entry that is `off`."""
    return (
        f"{entry['arm']} scores {entry['measured']:.2f} with the published settings, published are "
        f"{entry['published']:.2f} ({entry['source']}): look for what differs before you report it"
    )
