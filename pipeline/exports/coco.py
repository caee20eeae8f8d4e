"""COCO instances: one JSON file for all images (https://cocodataset.org/#format-data).

Masks are run lengths, exact. Image, category and annotation ids count from 1; category i + 1 is
class i. Boxes are XYWH. `score` is no part of the format; readers ignore it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..files.atomic import AtomicFile
from ..files.rle import encode_rle
from ..regions import Region
from ..result import Segmentation
from .base import Exporter

_FIRST = b'{"annotations": [\n'


class CocoExport(Exporter):
    """Writes one file; annotations go to the disk at once, memory holds the list of images."""

    START = "annotations.json"

    def __init__(self, folder: Path, class_names: Sequence[str]) -> None:
        super().__init__(folder, class_names)
        self._images: list[dict[str, Any]] = []
        self._annotations = 0
        self._file = AtomicFile(self.path)

    def add(self, name: str, result: Segmentation) -> None:
        height, width = result.size
        image_id = len(self._images) + 1
        self._images.append(
            {"id": image_id, "file_name": name, "width": width, "height": height},
        )
        for index, mask in enumerate(result.masks):
            region = Region.from_mask(mask, copy=False)
            x0, y0, x1, y1 = map(float, region.box)
            annotation = {
                "id": self._annotations + 1,
                "image_id": image_id,
                "category_id": int(result.class_ids[index]) + 1,
                "segmentation": encode_rle(mask),
                "area": region.area,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "iscrowd": 0,
                "score": float(result.scores[index]),
            }
            self._file.write((b",\n" if self._annotations else _FIRST) + _json(annotation))
            self._annotations += 1

    def finish(self) -> None:
        categories = [
            {"id": i, "name": name, "supercategory": ""} for i, name in enumerate(self._names, 1)
        ]
        rest = {"images": self._images, "categories": categories, "licenses": [], "info": {}}
        lines = [f'"{key}": '.encode() + _json(value) for key, value in rest.items()]
        start = b"\n" if self._annotations else _FIRST
        self._file.write(start + b"],\n" + b",\n".join(lines) + b"}\n")
        self._file.commit()

    def discard(self) -> None:
        self._file.discard()


def _json(value: object) -> bytes:
    # A lone surrogate (an undecodable byte of a file name) becomes "?": JSON cannot hold it.
    return json.dumps(value, ensure_ascii=False).encode("utf-8", errors="replace")
