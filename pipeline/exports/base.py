"""What every format does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..result import Segmentation


class Exporter:
    """Writes the files of a data set; unless a format says otherwise, each image's at once.

    Args:
        folder: where.
        class_names: K names.

    Attributes:
        path: where a reader starts: `START` in the folder.

    Raises:
        ValueError: the format cannot hold such classes.
    """

    START = ""  # the folder itself

    def __init__(self, folder: Path, class_names: Sequence[str]) -> None:
        self.path = folder / self.START
        self._folder, self._names = folder, class_names

    def add(self, name: str, result: Segmentation) -> None:
        """One image more; `name` is its path relative to the data set, with slashes.

        Raises:
            ValueError: the format cannot hold it.
            OSError: a file cannot be written.
        """
        raise NotImplementedError

    def finish(self) -> None:
        """Write the files of the whole data set, where the format has some."""

    def discard(self) -> None:
        """Leave nothing behind of files that `finish` did not complete."""
