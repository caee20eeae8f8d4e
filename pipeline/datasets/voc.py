"""Read PASCAL VOC's segmentation layout (Everingham et al., IJCV 2015).

    ROOT/JPEGImages/<id>.jpg                    the picture
    ROOT/SegmentationClass/<id>.png             class of every pixel
    ROOT/SegmentationObject/<id>.png            object of every pixel; the folder may be absent
    ROOT/ImageSets/Segmentation/<split>.txt     one id a line

Shapes: H×W image pixels. Labels: 0 background, i + 1 is `CLASSES[i]`, 255 void (not scored).
Objects: 0 background, 1…254 one object each, 255 void.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.images import load_image

from ..files.label_png import read_index_png
from .base import GroundTruth
from .lists import check_limit, check_size, is_list_path, picture_size, read_ids

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip
LABELS = ("background", *CLASSES)
IGNORE = 255

_OFFICIAL_SIZES = {"train": 1464, "val": 1449, "trainval": 2913}  # of VOC2012's lists


@dataclass(frozen=True, slots=True, kw_only=True)
class VocDataset:
    """The images of one list.

    Attributes:
        root: folder with JPEGImages, SegmentationClass, ...
        split: name or path of the list, as given.
        ids: the images, in the list's order, after `limit`.
        listed: number of ids in the list, before `limit`.
        has_objects: whether there is a folder SegmentationObject.
    """

    root: Path
    split: str
    ids: tuple[str, ...]
    listed: int
    has_objects: bool

    @property
    def labels(self) -> tuple[str, ...]:
        return LABELS

    @property
    def ignore(self) -> int:
        return IGNORE

    @classmethod
    def open(
        cls, root: str | Path, split: str | Path = "val", limit: int | None = None
    ) -> VocDataset:
        """Find a data set and read its list; the images are not touched yet.

        Args:
            root: usually VOCdevkit/VOC2012.
            split: a list in ImageSets/Segmentation (train, val, trainval, ...), or the path of a
                text file of ids; what ends in .txt or has a slash is a path.
            limit: take only the first ids; None takes all.

        Raises:
            FileNotFoundError: no such folder or list.
            ValueError: the folder is not laid out like VOC; the list is empty, has duplicates or
                something other than ids; `limit` is not positive.
        """
        root = Path(root)
        _check_layout(root)
        check_limit(limit)
        ids = read_ids(_list_path(root, str(split)))
        return cls(
            root=root,
            split=str(split),
            ids=ids[:limit],
            listed=len(ids),
            has_objects=(root / "SegmentationObject").is_dir(),
        )

    @property
    def official_size(self) -> int | None:
        """Number of images VOC2012's list of this name has; None for other data."""
        if "VOC2012" not in (self.root.absolute().name, self.root.resolve().name):
            return None
        return _OFFICIAL_SIZES.get(self.split)

    def image_path(self, image_id: str) -> Path:
        """The picture's file: .jpg, or .png if only that is there."""
        path, other = (self.root / "JPEGImages" / f"{image_id}.{end}" for end in ("jpg", "png"))
        return other if other.exists() and not path.exists() else path

    def label_paths(self, image_id: str) -> tuple[Path, ...]:
        """The files of `load_truth`: labels, and objects where the data set has them."""
        labels = self._png("SegmentationClass", image_id)
        return (labels, self._png("SegmentationObject", image_id))[: 1 + self.has_objects]

    def image_size(self, image_id: str) -> tuple[int, int]:
        """(H, W) of the picture as `load_image` returns it, from the file's header alone.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is not a picture.
        """
        return picture_size(self.image_path(image_id))

    def load_image(self, image_id: str) -> np.ndarray:
        """The picture, (H, W, 3) uint8 RGB.

        Raises:
            FileNotFoundError, ValueError: see `models.images.load_image`.
        """
        return load_image(self.image_path(image_id))

    def load_labels(self, image_id: str) -> np.ndarray:
        """Class of every pixel, (H, W) uint8: 0…20, or 255 for void.

        Raises:
            FileNotFoundError, ValueError: see `read_index_png`; or there are other values.
        """
        path = self._png("SegmentationClass", image_id)
        labels = read_index_png(path)
        wrong = (labels >= len(LABELS)) & (labels != IGNORE)
        if wrong.any():
            raise ValueError(
                f"label map '{path}' has the value {labels[wrong][0]}, expected 0…20 or 255; "
                "a palette PNG that was converted to grey has lost its labels"
            )
        return labels

    def load_objects(self, image_id: str) -> np.ndarray | None:
        """Object of every pixel, (H, W) uint8; None if the data set has no objects.

        Raises:
            FileNotFoundError, ValueError: see `read_index_png`.
        """
        if not self.has_objects:
            return None
        return read_index_png(self._png("SegmentationObject", image_id))

    def load_truth(self, image_id: str) -> GroundTruth:
        """Labels and objects, checked against the size of the picture.

        Raises:
            FileNotFoundError, ValueError: as the other methods; or the sizes differ.
        """
        size = self.image_size(image_id)
        labels, objects = self.load_labels(image_id), self.load_objects(image_id)
        for path, values in zip(self.label_paths(image_id), (labels, objects), strict=False):
            if values is not None:
                check_size(path, values.shape, self.image_path(image_id), size)
        return GroundTruth(labels=labels, objects=objects)

    def _png(self, folder: str, image_id: str) -> Path:
        return self.root / folder / f"{image_id}.png"


def _check_layout(root: Path) -> None:
    needed = ("JPEGImages", "SegmentationClass")
    hint = "give the folder VOCdevkit/VOC2012, or one that is laid out like it"
    if not root.is_dir():
        raise FileNotFoundError(f"VOC folder not found: '{root}'; {hint}")
    if missing := [name for name in needed if not (root / name).is_dir()]:
        for inner in (root / "VOC2012", root / "VOCdevkit" / "VOC2012"):
            if (inner / needed[0]).is_dir():
                hint = f"give '{inner}'"
                break
        raise ValueError(f"'{root}' is not a VOC folder: no {' and no '.join(missing)}; {hint}")


def _list_path(root: Path, split: str) -> Path:
    folder = root / "ImageSets" / "Segmentation"
    if is_list_path(split):
        return Path(split)
    if not (path := folder / f"{split}.txt").is_file():
        names = ", ".join(sorted(p.stem for p in folder.glob("*.txt"))) or "none"
        raise FileNotFoundError(
            f"no split {split!r}: '{path}' not found; splits there: {names}; "
            "a list of your own is given as the path of a .txt file"
        )
    return path


def open_voc(root: str | Path, split: str, limit: int | None) -> VocDataset:
    """`VocDataset.open`, for the table of data sets."""
    return VocDataset.open(root, split, limit)
