"""Feed results, image by image, to any number of formats."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from ..files.image_files import mark_folder
from ..result import Segmentation
from . import FORMATS


class Export:
    """Writes DIR/<format>/... for each format; memory does not grow with the masks.

        with Export("exports", ["coco", "yolo"], ["person", "car"]) as export:
            for path in results:
                export.add(Segmentation.load_json(path))

    Files of the whole data set appear when the block ends well, and not at all otherwise.

    Args:
        folder: DIR.
        formats: of `FORMATS`.
        class_names: what all results were asked for.

    Attributes:
        paths: where a reader of each format starts.

    Raises:
        ValueError: no or an unknown format, or one that cannot hold so many classes.
        OSError: the folder cannot be written.
    """

    def __init__(
        self, folder: str | Path, formats: Sequence[str], class_names: Sequence[str]
    ) -> None:
        if not formats or set(formats) - set(FORMATS):
            raise ValueError(f"unknown export formats {list(formats)}; valid: {', '.join(FORMATS)}")
        self.class_names = tuple(class_names)
        self._taken: dict[str, str] = {}
        self._folders = {name: Path(folder) / name for name in formats}
        self._exporters = [
            FORMATS[name].exporter()(place, self.class_names)
            for name, place in self._folders.items()
        ]
        self.paths = [exporter.path for exporter in self._exporters]

    def add(self, result: Segmentation, name: str | None = None) -> None:
        """Write one image's result.

        Args:
            result: its `class_names` must be those of the export.
            name: path of the image relative to the data set, with slashes: files are named after
                it; None takes the last part of `result.image_path`.

        Raises:
            ValueError: other class names; a name that leads elsewhere, or gives the files of
                another image; what a format cannot hold.
            OSError: a file cannot be written.
        """
        if result.class_names != self.class_names:
            raise ValueError(
                f"{result.image_path}: found for the words {', '.join(result.class_names)}, but "
                f"this export is for {', '.join(self.class_names)}; export each list by itself"
            )
        name = name or Path(result.image_path or "").name
        _claim(name, self._taken)
        for folder in self._folders.values():
            mark_folder(folder)
        for exporter in self._exporters:
            exporter.add(str(PurePosixPath(name)), result)

    def __enter__(self) -> Export:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if kind is None:
                for exporter in self._exporters:
                    exporter.finish()
        finally:
            for exporter in self._exporters:
                exporter.discard()


def check_names(names: Iterable[str]) -> None:
    """Refuse before the long work names of images that `Export.add` would refuse after it.

    Raises:
        ValueError: see `Export.add`.
    """
    taken: dict[str, str] = {}
    for name in names:
        _claim(name, taken)


def _claim(name: str, taken: dict[str, str]) -> None:
    """Enter into `taken` what the files of image `name` are called: the name without its ending."""
    path = PurePosixPath(name)
    if not path.stem or path.is_absolute() or ".." in path.parts:
        raise ValueError(f"cannot name files after {name!r}; give a path inside the data set")
    stem = str(path.with_suffix(""))
    # On some disks case does not tell files apart.
    if (other := taken.get(stem.casefold())) is not None:
        raise ValueError(f"{name} and {other} would both be exported as {stem}; rename one")
    taken[stem.casefold()] = name
