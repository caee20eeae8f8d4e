"""PASCAL VOC's segmentation layout (Everingham et al., IJCV 2015).

    SegmentationClass/<name>.png    class of every pixel: the label map, 0 nothing named
    SegmentationObject/<name>.png   object of every pixel, counted from 1 in the result's order
    ImageSets/Segmentation/all.txt  the images' names, one a line
    class_names.txt                 line i + 1 is label i; the first is "background"

A pixel has one class and one object: where masks overlap, the label map says which class, and the
best score of that class which object. A mask that lies under others has no pixels left.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from ..files.atomic import write_atomically
from ..files.label_png import write_index_png
from ..result import Segmentation
from .base import Exporter

MAX_LABELS = 254  # classes, or objects of an image: the values are bytes, 255 means "not scored"


class VocExport(Exporter):
    """Writes two palette PNGs per image, the list of images and the class names."""

    START = "class_names.txt"

    def __init__(self, folder: Path, class_names: Sequence[str]) -> None:
        super().__init__(folder, class_names)
        if len(class_names) > MAX_LABELS:
            raise ValueError(
                f"VOC's label maps tell {MAX_LABELS} classes apart, here are {len(class_names)}; "
                "export another format"
            )
        self._ids: list[str] = []

    def add(self, name: str, result: Segmentation) -> None:
        objects = object_map(result)  # first: it may refuse
        stem = PurePosixPath(name).with_suffix("")
        for kind, values in (("Class", result.label_map), ("Object", objects)):
            write_index_png(self._folder / f"Segmentation{kind}" / f"{stem}.png", values)
        self._ids.append(str(stem))

    def finish(self) -> None:
        listing = self._folder / "ImageSets" / "Segmentation" / "all.txt"
        write_atomically(listing, _lines(self._ids))
        write_atomically(self.path, _lines(["background", *self._names]))


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


def _lines(names: Sequence[str]) -> bytes:
    lines = (" ".join(name.split()) + "\n" for name in names)  # one line each, whatever it holds
    return "".join(lines).encode("utf-8", errors="surrogateescape")
