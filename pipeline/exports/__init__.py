"""Results in the formats of other tools: one file per format, and here a row for each."""

from __future__ import annotations

import pkgutil
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


FORMATS = {
    "coco": Format("pipeline.exports.coco:CocoExport", "one JSON file, exact masks"),
    "yolo": Format("pipeline.exports.yolo:YoloExport", "a text file of polygons per image"),
    "voc": Format("pipeline.exports.voc:VocExport", "palette PNGs of classes and of objects"),
    "labelme": Format("pipeline.exports.labelme:LabelmeExport", "a JSON file to edit per image"),
}
