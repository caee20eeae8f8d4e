"""COCO instances: one JSON file for all images (https://cocodataset.org/#format-data).

Masks are run lengths, exact. Image, category and annotation ids count from 1; category i + 1 is
class i. Boxes are XYWH. `score` is no part of the format; readers ignore it.
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..files.atomic import AtomicFile, read_json
from ..files.rle import encode_rle
from ..regions import Region
from ..result import Segmentation
from . import ExportSettings
from .base import Exporter

_FIRST = b'{"annotations": [\n'

Record = dict[str, Any]


class CocoExport(Exporter):
    """Writes one file; annotations go to the disk at once, memory holds the list of images.

    Of a file that is there, memory holds all. An image that is replaced keeps its id.
    """

    START = "annotations.json"

    def __init__(
        self, folder: Path, class_names: Sequence[str], settings: ExportSettings | None = None
    ) -> None:
        super().__init__(folder, class_names, settings)
        self._categories = [
            {"id": i, "name": name, "supercategory": ""} for i, name in enumerate(class_names, 1)
        ]
        self._rest: Record = {"licenses": [], "info": {}}
        self._old: dict[str, Record] = {}  # images by name
        self._old_annotations: dict[int, list[Record]] = defaultdict(list)  # by image id
        if self.path.exists():
            self._read()
        self._image_ids = _ids_after(self._old.values())
        self._ids = _ids_after(itertools.chain(*self._old_annotations.values()))
        self._images: dict[str, Record] = {}
        self._started = False
        self._error: OSError | None = None
        self._file = AtomicFile(self.path)

    def _read(self) -> None:
        """Take over what is there.

        Raises:
            ValueError: it has other classes, or is damaged.
        """
        again = "choose another --export-dir"
        data = read_json(self.path)
        try:
            categories = [(category["id"], category["name"]) for category in data["categories"]]
            self._old = {image["file_name"]: image for image in data["images"]}
            for annotation in data["annotations"]:
                self._old_annotations[annotation["image_id"]].append(annotation)
            numbers = {image["id"] for image in self._old.values()}
            classes = {annotation["category_id"] for annotation in data["annotations"]}
            ids = {annotation["id"] for annotation in data["annotations"]}
            whole = all(type(i) is int and i > 0 for i in numbers | ids)
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"{self.path} is damaged ({error!r}); {again}") from error
        if categories != [(c["id"], c["name"]) for c in self._categories]:
            names = ", ".join(str(name) for _, name in categories)
            raise ValueError(f"{self.path} is of the classes {names}; {again}")
        counts = len(data["images"]), len(data["annotations"])
        known = numbers >= self._old_annotations.keys() and classes <= {i for i, _ in categories}
        if not whole or not known or (len(numbers), len(ids)) != counts:
            raise ValueError(f"{self.path} is damaged (ids twice, or of nothing); {again}")
        self._rest = {key: data.get(key, value) for key, value in self._rest.items()}

    def add(self, name: str, result: Segmentation) -> None:
        name = name.encode("utf-8", errors="replace").decode()  # as `_json` writes it
        if name in self._images:
            raise ValueError(f"COCO would have two images {name}; rename one")
        height, width = result.size
        old = self._old.get(name)
        image_id = old["id"] if old else next(self._image_ids)
        free = [annotation["id"] for annotation in self._old_annotations.get(image_id, ())]
        ids = itertools.chain(free, self._ids)
        lines = [
            _json({"id": next(ids), "image_id": image_id, **_annotation(result, index)})
            for index in range(len(result))
        ]
        self._write(lines)
        self._images[name] = {"id": image_id, "file_name": name, "width": width, "height": height}

    def _write(self, lines: Sequence[bytes]) -> None:
        """Append annotations; after a failure nobody knows what of them is there."""
        try:
            for line in lines:
                self._file.write((b",\n" if self._started else _FIRST) + line)
                self._started = True
        except OSError as error:
            self._error = error
            raise

    def finish(self) -> None:
        if self._error:
            raise self._error
        replaced = {image["id"] for image in self._images.values()}
        for image_id, old in self._old_annotations.items():
            if image_id not in replaced:
                self._write([_json(annotation) for annotation in old])
        images = [*(self._old | self._images).values()]
        rest = {"images": images, "categories": self._categories} | self._rest
        lines = [f'"{key}": '.encode() + _json(value) for key, value in rest.items()]
        start = b"\n" if self._started else _FIRST
        self._file.write(start + b"],\n" + b",\n".join(lines) + b"}\n")
        self._file.commit()

    def discard(self) -> None:
        self._file.discard()


def _annotation(result: Segmentation, index: int) -> Record:
    region = Region.from_mask(result.masks[index], copy=False)
    x0, y0, x1, y1 = map(float, region.box)
    return {
        "category_id": int(result.class_ids[index]) + 1,
        "segmentation": encode_rle(result.masks[index]),
        "area": region.area,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "iscrowd": 0,
        "score": float(result.scores[index]),
    }


def _ids_after(records: Iterable[Record]) -> Iterator[int]:
    return itertools.count(max((record["id"] for record in records), default=0) + 1)


def _json(value: object) -> bytes:
    # A lone surrogate (an undecodable byte of a file name) becomes "?": JSON cannot hold it.
    return json.dumps(value, ensure_ascii=False).encode("utf-8", errors="replace")
