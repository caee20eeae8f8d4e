"""PASCAL VOC's segmentation layout (Everingham et al., IJCV 2015).

    SegmentationClass/<name>.png    class of every pixel: the label map, 0 nothing named
    SegmentationObject/<name>.png   object of every pixel, counted from 1 in the result's order
    ImageSets/Segmentation/all.txt  the images' names, one a line
    class_names.txt                 line i + 1 is label i; the first is "background"

A pixel has one class and one object: where masks overlap, the label map says which class, and the
best score of that class which object. A mask that lies under others has no pixels left.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from ..files.atomic import write_atomically
from ..files.label_png import write_index_png
from ..result import Segmentation
from . import ExportSettings
from .base import Exporter

MAX_LABELS = 254  # classes, or objects of an image: the values are bytes, 255 means "not scored"


class VocExport(Exporter):
    """Writes two palette PNGs per image, the list of images and the class names."""

    START = "class_names.txt"

    def __init__(
        self, folder: Path, class_names: Sequence[str], settings: ExportSettings | None = None
    ) -> None:
        super().__init__(folder, class_names, settings)
        if len(class_names) > MAX_LABELS:
            raise ValueError(
                f"VOC's label maps tell {MAX_LABELS} classes apart, here are {len(class_names)}; "
                "export another format"
            )
        names = [" ".join(name.splitlines()) for name in class_names]  # one line each
        self._classes = _lines(["background", *names])
        self._check_classes(self._classes)
        self._listing = folder / "ImageSets" / "Segmentation" / "all.txt"
        self._ids = dict.fromkeys(self._listed())

    def _listed(self) -> list[str]:
        """Names of the images that are there."""
        if not self._listing.exists() and not self.path.exists():
            return []
        text = self._listing.read_bytes() if self._listing.exists() else b"?"
        *names, rest = text.decode("utf-8", errors="surrogateescape").split("\n")
        lost = [n for n in names if not (self._folder / "SegmentationClass" / f"{n}.png").exists()]
        if rest or lost:
            raise ValueError(
                f"{self._listing} is damaged: it is not there, was cut off, or lists images that "
                "are not there; choose another --export-dir"
            )
        return names

    def add(self, name: str, result: Segmentation) -> None:
        objects = object_map(result)  # first: it may refuse
        stem = str(PurePosixPath(name).with_suffix(""))
        if stem.splitlines() != [stem]:
            raise ValueError(f"VOC lists a name per line, {name!r} has line breaks; rename it")
        for kind, values in (("Class", result.label_map), ("Object", objects)):
            write_index_png(self._folder / f"Segmentation{kind}" / f"{stem}.png", values)
        self._ids[stem] = None

    def finish(self) -> None:
        write_atomically(self._listing, _lines(self._ids))
        write_atomically(self.path, self._classes)


def object_map(result: Segmentation) -> np.ndarray:
    """(H, W) uint8: 0, or i + 1 where mask i is the best of the pixel's class.

    Raises:
        ValueError: more than `MAX_LABELS` masks.
    """
    if len(result) > MAX_LABELS:
        raise ValueError(
            f"VOC can number {MAX_LABELS} objects of an image, {result.image_path} has "
            f"{len(result)}; raise --min-confidence or --min-region-size, or export another format"
        )
    objects = np.zeros(result.size, np.uint8)
    for index in np.argsort(-result.scores, kind="stable")[::-1]:  # the best one last, on top
        mask = result.masks[index] & (result.label_map == result.class_ids[index] + 1)
        objects[mask] = index + 1
    return objects


def _lines(names: Iterable[str]) -> bytes:
    return "".join(f"{name}\n" for name in names).encode("utf-8", errors="surrogateescape")
