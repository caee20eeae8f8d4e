"""FOLDER/settings.json: what the results there were made with, checked before any are added."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .atomic import read_json, write_json


def claim_folder(
    place: Path, settings: dict[str, Any], *, taken: bool, what: str, option: str = "--output"
) -> None:
    """Write PLACE/settings.json, or check it if results are there.

    Args:
        place: of the results.
        settings: what more of them would be made with.
        taken: some are there; what a run wrote that made nothing binds nobody.
        what: the results are called in a refusal.
        option: chose the folder.

    Raises:
        ValueError: the results were made with other settings, or nobody knows with which.
    """
    file = place / "settings.json"
    settings = json.loads(json.dumps(settings))  # as read back
    if not taken:
        write_json(file, settings)
        return
    if not file.exists():
        raise ValueError(
            f"{place} holds {what} but no settings.json: nobody knows what they were made "
            f"with; choose another {option}, or add --overwrite"
        )
    found = _flat(read_json(file))
    wanted = _flat(settings)
    other = [k for k in {**wanted, **found} if found.get(k) != wanted.get(k)]
    if other:
        changes = "; ".join(f"{k}: {_short(found.get(k))}, now {_short(wanted.get(k))}"
                            for k in other[:4])  # fmt: skip
        raise ValueError(
            f"the {what} in {place} were made with other settings ({changes}"
            f"{'; …' if len(other) > 4 else ''}); choose another {option}, or add --overwrite"
        )


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by dots."""
    flat = {}
    for key, item in value.items():
        if isinstance(item, dict):
            flat |= _flat(item, f"{prefix}{key}.")
        else:
            flat[prefix + key] = item
    return flat


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:39] + "…"
