"""LabelMe: one JSON per image, which refers to the picture (https://github.com/wkentaro/labelme).

Every part of a mask is a polygon; the parts of one mask share a `group_id`. Holes are cut in (see
`polygons`). `score` beside LabelMe's own keys is what X-AnyLabeling reads; LabelMe keeps it.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ..files.atomic import write_json
from ..result import Segmentation
from .base import Exporter
from .polygons import mask_polygons

_VERSION = "5.5.0"  # of the format: the first whose shapes have all keys written here


class LabelmeExport(Exporter):
    """Writes a JSON per image, with the names of what it shows.

    The file refers to `result.image_path` as seen from where it lies; of a result without one, to
    a picture of that name beside it.
    """

    def add(self, name: str, result: Segmentation) -> None:
        path = self._folder / PurePosixPath(name).with_suffix(".json")
        height, width = result.size
        content = {
            "version": _VERSION,
            "flags": {},
            "shapes": [s for i in range(len(result)) for s in self._shapes(result, i)],
            "imagePath": _picture(path, name, result.image_path),
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        write_json(path, content)

    def _shapes(self, result: Segmentation, index: int) -> list[dict[str, Any]]:
        rings = mask_polygons(result.masks[index], self._settings.polygon_tolerance)
        return [
            {
                "label": result.class_name(index),
                "points": np.round(ring, 2).tolist(),
                "group_id": index + 1 if len(rings) > 1 else None,
                "description": "",
                "shape_type": "polygon",
                "flags": {},
                "mask": None,
                "score": round(float(result.scores[index]), 4),
            }
            for ring in rings
        ]


def _picture(path: Path, name: str, image_path: str | None) -> str:
    """The picture's path from where the JSON lies, with slashes."""
    if image_path is None:
        return PurePosixPath(name).name
    image = Path(image_path).absolute()
    # Links in either folder would lead ".." elsewhere; the picture may be a link and keep its name.
    start = path.absolute().parent.resolve()
    return Path(os.path.relpath(image.parent.resolve() / image.name, start)).as_posix()
