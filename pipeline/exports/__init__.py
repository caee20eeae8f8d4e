"""Results in the formats of other tools: one file per format, and here a row for each."""

from __future__ import annotations

import pkgutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .base import Exporter


class Format(NamedTuple):
    """An export format; its class loads slowly, and --help needs only the words."""

    place: str  # module:class
    meaning: str

    def exporter(self) -> type[Exporter]:
        """The class that writes it."""
        return pkgutil.resolve_name(self.place)


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """What can be chosen about the files.

    Attributes:
        polygon_tolerance: of YOLO and LabelMe, pixels that a polygon may be off to have fewer
            vertices; 0 keeps them all.
        yolo_images: "copy" or "link" puts the pictures beside YOLO's labels; None does not.
        yolo_val: share of them in YOLO's list val.txt, the others are in train.txt; None makes no
            lists.

    Raises:
        ValueError: a value that makes no sense.
    """

    polygon_tolerance: float = 0.0
    yolo_images: str | None = None
    yolo_val: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.polygon_tolerance < float("inf"):
            raise ValueError(
                f"--polygon-tolerance must be 0 pixels or more, got {self.polygon_tolerance}"
            )
        if self.yolo_images not in (None, "copy", "link"):
            raise ValueError(f"--yolo-images must be copy or link, got {self.yolo_images!r}")
        if self.yolo_val is not None and not 0 < self.yolo_val < 1:
            raise ValueError(
                f"--yolo-val must be a share between 0 and 1 such as 0.2, got {self.yolo_val}"
            )
        if self.yolo_val is not None and self.yolo_images is None:
            raise ValueError("--yolo-val lists pictures: add --yolo-images copy or link")


FORMATS = {
    "coco": Format("pipeline.exports.coco:CocoExport", "one JSON file, exact masks"),
    "yolo": Format("pipeline.exports.yolo:YoloExport", "a text file of polygons per image"),
    "voc": Format("pipeline.exports.voc:VocExport", "palette PNGs of classes and of objects"),
    "labelme": Format("pipeline.exports.labelme:LabelmeExport", "a JSON file to edit per image"),
}

HEATMAP_FORMATS = {
    "png": "grey, 255 × probability",
    "png16": "grey of 16 bits, 65535 × probability",
    "npy": "NumPy's, float32",
}
