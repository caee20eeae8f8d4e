"""Read any folder of images with label PNGs beside them.

    ROOT/images/train/a/0001.jpg    the picture; sub-folders are lists, of any depth
    ROOT/labels/train/a/0001.png    label of every pixel, at the same place
    ROOT/classes.txt                names of the labels 0, 1, …, one a line; may be absent

Shapes: H×W image pixels. Labels: 0…C-1, all of them classes, 255 void (not scored).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.images import load_image

from ..files.label_png import read_index_png
from .base import GroundTruth
from .coco_stuff_27 import COCO_STUFF_27
from .lists import check_limit, check_size, picture_size

logger = logging.getLogger(__name__)

IGNORE = 255
INVALID = -1  # of `LabelFolder.codes`: a value that no label map holds
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelFolder:
    """The images of one list; see `pipeline.datasets.base.Dataset`.

    Attributes:
        root: folder with images and labels.
        split: its list, as given.
        files: id -> picture; an id is the picture's path below that of all, without its ending.
        listed: number of images in the list, before a limit.
        labels: names of the labels.
        maps: folder of the label maps, ID.png each.
        codes: (256,) int16, the label of each value in a label map, `IGNORE` or `INVALID`.
    """

    root: Path
    split: str
    files: dict[str, Path]
    listed: int
    labels: tuple[str, ...]
    maps: Path
    codes: np.ndarray

    ignore = IGNORE
    official_size = None
    has_objects = False

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self.files)

    def image_path(self, image_id: str) -> Path:
        """The picture's file."""
        return self.files[image_id]

    def label_paths(self, image_id: str) -> tuple[Path, ...]:
        """The file of `load_truth`."""
        return (self.maps / f"{image_id}.png",)

    def load_image(self, image_id: str) -> np.ndarray:
        """The picture, (H, W, 3) uint8 RGB; errors of `models.images.load_image`."""
        return load_image(self.image_path(image_id))

    def load_truth(self, image_id: str) -> GroundTruth:
        """Labels (H, W) uint8, of the picture's size.

        Raises:
            FileNotFoundError, ValueError: see `read_index_png`; values that mean no label; or
                another size than the picture's.
        """
        (path,) = self.label_paths(image_id)
        values = read_index_png(path)
        labels = self.codes[values]
        if (wrong := labels == INVALID).any():
            known = np.flatnonzero(self.codes[:IGNORE] != INVALID)
            raise ValueError(
                f"label map '{path}' has the value {values[wrong][0]}, expected "
                f"0…{known.max()} or {IGNORE}"
            )
        image = self.image_path(image_id)
        check_size(path, values.shape, image, picture_size(image))
        return GroundTruth(labels.astype(np.uint8), None)


def open_folder(root: str | Path, split: str, limit: int | None) -> LabelFolder:
    """Find the images of a list that have label maps; the maps are read only to count labels.

    Args:
        root: folder with `images` and `labels`.
        split: a sub-folder of both, several joined by "+", or "all".
        limit: take only the first; None takes all.

    Raises:
        FileNotFoundError: no such folder, or no picture with a label map in it.
        ValueError: `limit` is not positive; two pictures share a label map; damaged label maps.
    """
    root = Path(root)
    images, labels = root / "images", root / "labels"
    for folder in (images, labels):
        if not folder.is_dir():
            raise FileNotFoundError(
                f"folder '{folder}' not found: expected ROOT/images/SPLIT/NAME.jpg with "
                "ROOT/labels/SPLIT/NAME.png"
            )
    names = _class_names(root)
    codes = np.full(256, INVALID, np.int16)
    codes[: len(names)], codes[IGNORE] = range(len(names)), IGNORE
    return _open(root, split, split.split("+"), images, labels, limit, names, codes)


def open_coco_stuff_27(root: str | Path, split: str, limit: int | None) -> LabelFolder:
    """COCO-Stuff by its 27 coarse classes, from the raw `stuffthingmaps`.

    Args:
        root: folder with images/val2017 (or val2017) and annotations/val2017 (or
            stuffthingmaps/val2017).
        split: "train" or "val", of 2017.
        limit: take only the first; None takes all.

    Raises:
        FileNotFoundError, ValueError: see `open_folder`.
    """
    root = Path(root)
    images = root / "images" if (root / "images").is_dir() else root
    maps = root / "annotations"
    maps = maps if maps.is_dir() else root / "stuffthingmaps"
    codes = np.full(256, INVALID, np.int16)
    for label, numbers in enumerate(COCO_STUFF_27.values()):
        codes[list(numbers)] = label
    codes[IGNORE] = IGNORE
    names = tuple(COCO_STUFF_27)
    return _open(root, split, [f"{split}2017"], images, maps, limit, names, codes)


def _open(
    root: Path,
    split: str,
    parts: Sequence[str],
    images: Path,
    maps: Path,
    limit: int | None,
    names: tuple[str, ...],
    codes: np.ndarray,
) -> LabelFolder:
    check_limit(limit)
    found: list[Path] = []
    for part in parts:
        if part != "all" and not (images / part).is_dir():
            there = sorted(path.name for path in images.glob("*/")) or ["none"]
            raise FileNotFoundError(
                f"no split {part!r} in '{images}'; there: {', '.join(there)}, all"
            )
        found += images_with_labels(images, maps, "" if part == "all" else part)
    files = {image.relative_to(images).with_suffix("").as_posix(): image for image in found}
    if not files:
        raise FileNotFoundError(f"no picture of {split!r} in '{images}' has a PNG in '{maps}'")
    return LabelFolder(
        root=root,
        split=split,
        files=dict(list(files.items())[:limit]),
        listed=len(files),
        labels=names,
        maps=maps,
        codes=codes,
    )


def images_with_labels(images: Path, labels: Path, part: str = "") -> list[Path]:
    """The images below `images`/`part` whose label PNG is at the same place below `labels`.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: two images of one name would share a label map.
    """

    def label_of(path: Path) -> Path:
        return labels / path.relative_to(images).with_suffix(".png")

    return images_with(images / part, label_of)


def images_in(folder: Path) -> list[Path]:
    """The images of a folder, at any depth and sorted.

    Raises:
        FileNotFoundError: no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"folder {folder} does not exist: give a folder of images")
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def images_with(folder: Path, other_of: Callable[[Path], Path]) -> list[Path]:
    """The images of a folder, at any depth and sorted, of which another file, too, is there.

    Args:
        folder: of the images.
        other_of: image -> the file that it needs.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: two images need the same file.
    """
    images = images_in(folder)
    owners: dict[Path, Path] = {}  # the other file -> its image
    for path in images:
        other = other_of(path)
        if other == path or not other.is_file():
            continue
        if other in owners:
            raise ValueError(f"{other} would be of {owners[other]} and of {path}; rename one")
        owners[other] = path
    usable = list(owners.values())
    if usable and len(usable) < len(images):
        without = len(images) - len(usable)
        logger.info("%s: %d of %d images have no masks: left out", folder, without, len(images))
    return usable


def _class_names(root: Path) -> tuple[str, ...]:
    """Of classes.txt; where there is none, numbers up to the highest label of all lists."""
    file = root / "classes.txt"
    if file.is_file():
        lines = file.read_text(encoding="utf-8-sig").splitlines()
        names = tuple(name for line in lines if (name := line.strip()))
        if not names or len(set(names)) < len(names):
            raise ValueError(f"'{file}' must name the labels 0, 1, …, one a line, none twice")
        if len(names) > IGNORE:
            raise ValueError(
                f"'{file}' names {len(names)} labels, expected at most {IGNORE}: label maps have 8 "
                f"bits, and {IGNORE} is not scored"
            )
        return names
    highest = 0
    for path in sorted((root / "labels").rglob("*.png")):
        values = read_index_png(path)
        highest = max(highest, int(values[values != IGNORE].max(initial=0)))
    return tuple(f"label {number}" for number in range(highest + 1))
