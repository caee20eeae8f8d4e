"""Options that others make meaningless are refused, not ignored: a row for each kind.

Every option of a program that is in no row, and is not refused where it is read (weights of an
upsampler that is not used, `given_weights`; --min-confidence where each class has a --threshold,
`read_vocabulary`), matters in every run.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Needs(NamedTuple):
    """Options that are used only if something else is asked for."""

    options: tuple[str, ...]  # names in the parsed arguments
    met: Callable[[argparse.Namespace], bool]  # whether they are used
    what: str  # they need, as it is typed


# Settings of one upsampler or strategy, whatever the program.
SETTINGS = (
    Needs(("points_per_region",), lambda args: args.strategy == "multi", "--strategy multi"),
)
LOFTUP = ("loftup_share", "text_space")


def flag(name: str) -> str:
    """The option of a name in the parsed arguments."""
    return "--" + name.replace("_", "-")


def refuse_ignored(args: argparse.Namespace, rows: Sequence[Needs]) -> None:
    """Refuse what would not be used.

    Args:
        args: parsed by `Parser.parse_all`, whose `given` says what was typed.
        rows: of the program.

    Raises:
        ValueError: naming the option, and what it needs.
    """
    for row in rows:
        for name in row.options:
            if name in args.given and not row.met(args):
                raise ValueError(f"{flag(name)} needs {row.what}: without it, it would not be used")
