"""What every format does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..result import Segmentation
from . import ExportSettings


class Exporter:
    """Writes the files of a data set; unless a format says otherwise, each image's at once.

    A data set that is there grows: an image of a name that it has is replaced.

    Args:
        folder: where.
        class_names: K names.
        settings: what was chosen.

    Attributes:
        path: where a reader starts: `START` in the folder.

    Raises:
        ValueError: the format cannot hold such classes, or the data set there has others or is
            damaged.
    """

    START = ""  # the folder itself

    def __init__(
        self, folder: Path, class_names: Sequence[str], settings: ExportSettings | None = None
    ) -> None:
        self.path = folder / self.START
        self._folder, self._names = folder, class_names
        self._settings = settings or ExportSettings()

    def add(self, name: str, result: Segmentation) -> None:
        """One image more; `name` is its path relative to the data set, with slashes.

        Raises:
            ValueError: the format cannot hold it.
            OSError: a file cannot be written.
        """
        raise NotImplementedError

    def _check_classes(self, classes: bytes, start: bytes = b"") -> None:
        """Refuse a data set that is there but whose `path`, from `start` on, is not these bytes."""
        content = self.path.read_bytes() if self.path.exists() else classes
        if content[content.find(start) :] != classes:
            raise ValueError(
                f"{self.path} is of other classes, or damaged; choose another --export-dir"
            )

    def finish(self) -> None:
        """Write the files of the whole data set, where the format has some."""

    def discard(self) -> None:
        """Leave nothing behind of files that `finish` did not complete."""
