"""YOLO segmentation (https://docs.ultralytics.com/datasets/segment/).

    labels/<name>.txt   a line per object: class index, x1 y1 x2 y2 ... as shares of width, height
    data.yaml           class names; the pictures belong in images/, beside labels/

The format has one ring per object and no scores. Holes and parts are joined by cuts (see
`polygons`): a reader that fills the ring's border adds the lines between parts, one pixel wide.
"""

from __future__ import annotations

import json
from pathlib import PurePosixPath

from ..files.atomic import write_atomically
from ..result import Segmentation
from .base import Exporter
from .polygons import join_rings, mask_polygons


class YoloExport(Exporter):
    """Writes a text file per image, also an empty one, and `data.yaml`."""

    START = "data.yaml"

    def add(self, name: str, result: Segmentation) -> None:
        height, width = result.size
        lines = []
        for class_id, mask in zip(result.class_ids, result.masks, strict=True):
            if rings := mask_polygons(mask):
                shares = join_rings(rings) / (width, height)
                lines.append(f"{class_id} {' '.join(f'{v:.6f}' for v in shares.ravel())}\n")
        path = self._folder / "labels" / PurePosixPath(name).with_suffix(".txt")
        write_atomically(path, "".join(lines).encode())

    def finish(self) -> None:
        names = "".join(f"  {i}: {_quoted(name)}\n" for i, name in enumerate(self._names))
        text = f"train: images\nval: images\nnames:\n{names}"
        write_atomically(self.path, text.encode())


def _quoted(text: str) -> str:
    """A double-quoted YAML scalar: JSON's, but with what YAML forbids as escapes."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08X}" for c in quoted)
