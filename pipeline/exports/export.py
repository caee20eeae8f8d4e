"""Feed results, image by image, to any number of formats."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ..files.atomic import read_json, sha256, write_atomically
from ..files.image_files import mark_folder
from ..result import Segmentation
from . import FORMATS, ExportSettings

_AGAIN = "choose another --export-dir"
logger = logging.getLogger(__name__)


class Picture(NamedTuple):
    """What an image's name stands for, so that no other picture takes its place."""

    name: str
    path: str | None
    sha256: str | None  # of the file


class Export:
    """Writes DIR/<format>/... for each format; memory does not grow with the masks.

        with Export("exports", ["coco", "yolo"], ["person", "car"]) as export:
            for path in results:
                export.add(Segmentation.load_json(path))

    Files of the whole data set appear when the block ends well, and not at all otherwise. What is
    in the folder grows: DIR/export.json has the classes, and which pictures there are.

    Args:
        folder: DIR.
        formats: of `FORMATS`.
        class_names: what all results were asked for.
        settings: of the files.

    Attributes:
        paths: where a reader of each format starts.
        left_out: a line for every image that a format could not take; they are logged, too.

    Raises:
        ValueError: no or an unknown format, or one that cannot hold so many classes; a data set
            that is there has other classes, or is damaged.
        OSError: the folder cannot be read or written.
    """

    def __init__(
        self,
        folder: str | Path,
        formats: Sequence[str],
        class_names: Sequence[str],
        settings: ExportSettings | None = None,
    ) -> None:
        if not formats or set(formats) - set(FORMATS):
            raise ValueError(f"unknown export formats {list(formats)}; valid: {', '.join(FORMATS)}")
        self.class_names = tuple(class_names)
        self.left_out: list[str] = []
        self._state = Path(folder) / "export.json"
        self._there = self._read()  # those of earlier runs, by the names of their files
        self._taken: dict[str, Picture] = {}  # those of this one
        self._started: bytes | None = None  # what this run wrote into export.json
        self._exporters = {
            name: FORMATS[name].exporter()(Path(folder) / name, self.class_names, settings)
            for name in dict.fromkeys(formats)
        }
        self.paths = [exporter.path for exporter in self._exporters.values()]

    def _read(self) -> dict[str, Picture]:
        if not self._state.exists():
            return {}
        data = read_json(self._state)
        try:
            pictures = [Picture(**fields) for fields in data["images"]]
            classes = tuple(data["class_names"])
            there = {_stem(picture.name).casefold(): picture for picture in pictures}
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"{self._state} is damaged ({error!r}); {_AGAIN}") from error
        if classes != self.class_names:
            raise ValueError(
                f"{self._state.parent} is for {', '.join(map(str, classes))} and cannot be "
                f"continued with {', '.join(self.class_names)}: the numbers of the classes would "
                f"mean two things; {_AGAIN}"
            )
        return there

    def check(self, pictures: Iterable[tuple[str, str | Path]]) -> None:
        """Refuse before the long work what `add` would refuse after it.

        Args:
            pictures: of each image the name, as of `add`, and the file.

        Raises:
            ValueError: see `add`.
        """
        taken: dict[str, Picture] = {}
        for name, path in pictures:
            self._claim(name, str(path), taken)

    def add(self, result: Segmentation, name: str | None = None) -> None:
        """Write one image's result; a format that cannot take it does not stop the others.

        Args:
            result: its `class_names` must be those of the export.
            name: path of the image relative to the data set, with slashes: files are named after
                it; None takes the last part of `result.image_path`.

        Raises:
            ValueError: other class names; a name that leads elsewhere, or gives the files of
                another image.
            OSError: the folder cannot be written.
        """
        if result.class_names != self.class_names:
            raise ValueError(
                f"{result.image_path}: found for the words {', '.join(result.class_names)}, but "
                f"this export is for {', '.join(self.class_names)}; export each list by itself"
            )
        name = name or Path(result.image_path or "").name
        key = self._claim(name, result.image_path, self._taken)
        self._taken[key] = self._taken[key]._replace(sha256=_digest(result.image_path))
        if self._started is None:
            # Before anything else: what is left by a run that fails has these classes.
            self._started = self._write(self._there)
            for kind in self._exporters:
                mark_folder(self._state.parent / kind)
        for kind, exporter in self._exporters.items():
            try:
                exporter.add(str(PurePosixPath(name)), result)
            except (ValueError, OSError) as error:
                self.left_out.append(f"{name} is left out of {kind}: {error}")
                logger.warning("%s", self.left_out[-1])

    def _claim(self, name: str, path: str | None, taken: dict[str, Picture]) -> str:
        """Enter into `taken` what the files of an image are called; returns the key."""
        stem = _stem(name)
        key = stem.casefold()  # on some disks case does not tell files apart
        picture = Picture(name, path and os.path.realpath(path), None)
        if other := taken.get(key):
            raise ValueError(
                f"{name} and {other.name} would both be exported as {stem}; rename one"
            )
        old = self._there.get(key) or picture
        moved = old.path != picture.path and old.sha256 and old.sha256 == _digest(path)
        if old.name != name or not (old.path == picture.path or moved):
            raise ValueError(
                f"{path} would replace {old.path}, exported earlier as {old.name}: rename one, or "
                f"{_AGAIN}"
            )
        taken[key] = picture
        return key

    def _write(self, pictures: Mapping[str, Picture]) -> bytes:
        images = [picture._asdict() for picture in pictures.values()]
        # ASCII, which can hold names that are no valid text.
        text = json.dumps({"class_names": self.class_names, "images": images}, indent=1) + "\n"
        write_atomically(self._state, text.encode())
        return text.encode()

    def _finish(self) -> None:
        if self._started is not None and self._state.read_bytes() != self._started:
            raise ValueError(
                f"another run has written into {self._state.parent} meanwhile; run this one again"
            )
        self._write(self._there | self._taken)
        errors = []
        for exporter in self._exporters.values():
            try:
                exporter.finish()
            except OSError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def __enter__(self) -> Export:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            for exporter in self._exporters.values():
                exporter.discard()


def _stem(name: str) -> str:
    """What the files of an image are called: its name without the ending."""
    path = PurePosixPath(name)
    if not path.stem or path.is_absolute() or ".." in path.parts:
        raise ValueError(f"cannot name files after {name!r}; give a path inside the data set")
    return str(path.with_suffix(""))


def _digest(path: str | None) -> str | None:
    return sha256(Path(path)) if path and os.path.isfile(path) else None
