"""YOLO segmentation (https://docs.ultralytics.com/datasets/segment/).

    labels/<name>.txt    a line per object: class index, x1 y1 x2 y2 ... as shares of width, height
    images/<picture>     where asked for, the pictures; else they are to be put here
    train.txt, val.txt   where asked for, which of them are for what
    data.yaml            class names, and where the pictures are

The format has one ring per object and no scores. Holes and parts are joined by cuts (see
`polygons`): a reader that fills the ring's border adds the lines between parts, one pixel wide.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ..files.atomic import write_atomically
from ..result import Segmentation
from . import ExportSettings
from .base import Exporter
from .polygons import join_rings, mask_polygons


class YoloExport(Exporter):
    """Writes a text file per image, also an empty one, and `data.yaml`."""

    START = "data.yaml"

    def __init__(
        self, folder: Path, class_names: Sequence[str], settings: ExportSettings | None = None
    ) -> None:
        super().__init__(folder, class_names, settings)
        names = "".join(f"  {i}: {_quoted(name)}\n" for i, name in enumerate(class_names))
        self._classes = f"names:\n{names}".encode()
        self._check_classes(self._classes, start=b"names:\n")
        if self._settings.yolo_val is None and (folder / "val.txt").exists():
            raise ValueError(f"{folder} is split by val.txt: add --yolo-val SHARE to do so again")

    def add(self, name: str, result: Segmentation) -> None:
        if self._settings.yolo_val is not None and name.splitlines() != [name]:
            raise ValueError(f"YOLO lists a picture per line, {name!r} has line breaks; rename it")
        height, width = result.size
        lines = []
        for class_id, mask in zip(result.class_ids, result.masks, strict=True):
            if rings := mask_polygons(mask, self._settings.polygon_tolerance):
                shares = join_rings(rings) / (width, height)
                lines.append(f"{class_id} {' '.join(f'{v:.6f}' for v in shares.ravel())}\n")
        # First: a picture without labels would be one without objects.
        write_atomically(self._folder / _label_file(name), "".join(lines).encode())
        if self._settings.yolo_images is not None:
            if result.image_path is None:
                raise ValueError(f"{name}: nobody knows where its picture is; set image_path")
            picture = self._folder / "images" / name
            _place(Path(result.image_path), picture, link=self._settings.yolo_images == "link")

    def finish(self) -> None:
        places = {"train": "images", "val": "images"}
        if self._settings.yolo_val is not None:
            for part, names in _split(self._pictures(), self._settings.yolo_val).items():
                places[part] = f"{part}.txt"
                text = "".join(f"./images/{name}\n" for name in names)
                data = text.encode("utf-8", errors="surrogateescape")
                write_atomically(self._folder / places[part], data)
        start = "".join(f"{part}: {place}\n" for part, place in places.items())
        write_atomically(self.path, start.encode() + self._classes)

    def _pictures(self) -> list[str]:
        """Those in images/ that have labels."""
        images = self._folder / "images"
        found = (p.relative_to(images).as_posix() for p in images.rglob("*") if p.is_file())
        return sorted(name for name in found if (self._folder / _label_file(name)).is_file())


def _label_file(name: str) -> str:
    """Where readers look for a picture's labels: they replace the last "images" in its path."""
    before, _, after = f"/images/{PurePosixPath(name).with_suffix('.txt')}".rpartition("/images/")
    return f"{before}/labels/{after}"[1:]


def _place(source: Path, target: Path, *, link: bool) -> None:
    """Copy or link a picture; what is there is replaced."""
    source = source.resolve(strict=True)
    if target.is_symlink():
        target.unlink()  # else it would be written through
    elif target.exists() and target.samefile(source):
        return
    if not link:
        write_atomically(target, source.read_bytes())
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.parent / f".{uuid.uuid4().hex}.tmp"
    temporary.symlink_to(source)
    os.replace(temporary, target)


def _split(names: Sequence[str], share: float) -> dict[str, Sequence[str]]:
    """Each name's place follows from itself alone, but no list is empty if there are two names."""

    def order(name: str) -> float:
        data = name.encode("utf-8", errors="surrogateescape")
        return int.from_bytes(hashlib.sha256(data).digest()[:8], "big") / 2**64

    ranked = sorted(names, key=order)
    count = sum(order(name) < share for name in names)
    if len(names) > 1:
        count = min(max(count, 1), len(names) - 1)
        return {"train": sorted(ranked[count:]), "val": sorted(ranked[:count])}
    return {"train": names, "val": names}


def _quoted(text: str) -> str:
    """A double-quoted YAML scalar: JSON's, but with what YAML forbids as escapes."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08X}" for c in quoted)
