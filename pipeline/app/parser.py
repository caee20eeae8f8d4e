"""The parser of all programs: --help, --version, one line for bad options, and what was typed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from .. import __version__


def add_version(parser: argparse.ArgumentParser) -> None:
    """--version, without anything loaded for it."""
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")


class Parser(argparse.ArgumentParser):
    """Reports bad options as the programs report all bad input: one line, exit code 2."""

    def __init__(self, description: str | None) -> None:
        super().__init__(
            description=description, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        add_version(self)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {' '.join(message.split())}; see --help\n")

    def parse_all(self, argv: Sequence[str] | None) -> argparse.Namespace:
        """As `parse_args`; `given` of the result has the names of what was typed, as `dest`s.

        A value equal to its default was typed all the same.
        """
        args = self.parse_args(argv)
        defaults: dict[argparse.Action, Any] = {each: each.default for each in self._actions}
        try:
            for action in defaults:
                action.default = argparse.SUPPRESS
            args.given = frozenset(vars(self.parse_args(argv)))
        finally:
            for action, default in defaults.items():
                action.default = default
        return args
