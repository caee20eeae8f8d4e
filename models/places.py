"""Places of code, "module:name", in tables that import nothing before a row is used."""

from __future__ import annotations

import importlib
from typing import Any


def load_place(place: str) -> Any:
    """What `place` names."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
