"""Settings as dataclass fields: each says its own help, default and range, once.

Options of the programs, their help and the checks all derive from these fields.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any


def setting(
    default: Any,
    text: str = "",
    *,
    choices: Sequence[Any] = (),
    least: float | None = None,
    greatest: float | None = None,
    whose: str = "",
    alias: str = "",
    kind: Callable[[Any], Any] | None = None,
) -> Any:
    """A field of a configuration.

    Args:
        default: its default; None is allowed whatever the range, and is settled later.
        text: help of its option; without, it is no option of the programs.
        choices: the values there are.
        least, greatest: its range, both included.
        whose: who settles it where it is None, for the help: "the preset's".
        alias: a second name of its option.
        kind: reads it as it is typed, and refuses what it cannot be by a ValueError that goes on
            after the field's name; None takes the default's type. The range is that of numbers.
    """
    metadata = {
        "help": text,
        "choices": tuple(choices),
        "range": (least, greatest),
        "whose": whose,
        "alias": alias,
        "kind": kind,
    }
    return dataclasses.field(default=default, metadata=metadata)


def check_settings(config: Any) -> None:
    """Refuse values that a field's choices or range do not have.

    Raises:
        ValueError: naming the field, its value and what is valid.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        choices = field.metadata.get("choices")
        if value is None and field.default is None:
            continue
        if choices and value not in choices:
            names = ", ".join(map(str, choices))
            raise ValueError(f"unknown {field.name} {value!r}; valid: {names}")
        if (kind := field.metadata.get("kind")) and isinstance(value, str):
            try:
                value = kind(value)
            except ValueError as error:
                raise ValueError(f"{field.name} {error}") from None
            if isinstance(value, str):
                continue
        least, greatest = field.metadata.get("range", (None, None))
        if least is not None and greatest is not None:
            if not least <= value <= greatest:
                raise ValueError(
                    f"{field.name} must be between {least} and {greatest}, got {value}"
                )
        elif least is not None and value < least:
            raise ValueError(f"{field.name} must be at least {least}, got {value}")
