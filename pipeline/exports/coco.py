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
from ..result import Segmentation, encode_rle

FILE = "annotations.json"
_START = b'{"annotations": [\n'


class CocoExport:
    """Writes `annotations.json`; annotations go to the disk at once, memory holds the image list.

    Args:
        folder: where.
        class_names: K names.
    """

    def __init__(self, folder: Path, class_names: Sequence[str]) -> None:
        self.path = folder / FILE
        self._names = class_names
        self._images: list[dict[str, Any]] = []
        self._annotations = 0
        self._file = AtomicFile(self.path)

    def add(self, name: str, result: Segmentation) -> None:
        """One image more; `name` is its path relative to the data set, with slashes."""
        from pycocotools import mask as coco  # slow to import

        height, width = result.size
        image_id = len(self._images) + 1
        self._images.append(
            {"id": image_id, "file_name": name, "width": width, "height": height},
        )
        for index in range(len(result)):
            rle = encode_rle(result.masks[index])
            annotation = {
                "id": self._annotations + 1,
                "image_id": image_id,
                "category_id": int(result.class_ids[index]) + 1,
                "segmentation": rle,
                "area": int(coco.area(rle)),
                "bbox": coco.toBbox(rle).tolist(),
                "iscrowd": 0,
                "score": float(result.scores[index]),
            }
            self._file.write((b",\n" if self._annotations else _START) + _json(annotation))
            self._annotations += 1

    def finish(self) -> None:
        """Complete the file and give it its name."""
        categories = [
            {"id": i, "name": name, "supercategory": ""} for i, name in enumerate(self._names, 1)
        ]
        for key, value in (
            (b"images", self._images),
            (b"categories", categories),
            (b"licenses", []),
            (b"info", {}),
        ):
            separator = b"\n],\n" if key == b"images" else b",\n"
            if key == b"images" and not self._annotations:
                separator = _START + b"],\n"
            self._file.write(separator + b'"' + key + b'": ' + _json(value))
        self._file.write(b"}\n")
        self._file.commit()

    def discard(self) -> None:
        """Leave nothing behind that was not finished."""
        self._file.discard()


def _json(value: object) -> bytes:
    # A lone surrogate (an undecodable byte of a file name) becomes "?": JSON cannot hold it.
    return json.dumps(value, ensure_ascii=False).encode("utf-8", errors="replace")
