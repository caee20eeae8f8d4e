"""What the formats share that write every image's files at once, and whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class PerImageExport:
    """A folder with files per image; nothing is ever unfinished.

    Args:
        folder: where.
        class_names: K names.

    Attributes:
        path: where a reader starts: `START` in the folder.
    """

    START = ""  # the folder itself

    def __init__(self, folder: Path, class_names: Sequence[str]) -> None:
        self.path = folder / self.START
        self._folder, self._names = folder, class_names

    def finish(self) -> None:
        """Write the files of the whole data set, where the format has some."""

    def discard(self) -> None:
        """Nothing to remove."""
