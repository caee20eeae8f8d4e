"""The data sets by name, a row each: how one is opened, and what scores it.

To add one: a module with its reader (`base.Dataset`), its words and protocol in `models`, a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from models.places import load_place

from .base import Dataset


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetRow:
    """One data set.

    Attributes:
        meaning: what it is, for help.
        reader: "module:function" of (root, split, limit) -> `Dataset`.
        split: its list, unless another is asked for.
        protocol: of `models.protocols`, unless another is asked for; "" where nobody knows its
            words beforehand.
    """

    meaning: str
    reader: str
    split: str
    protocol: str = ""


DATASETS: dict[str, DatasetRow] = {
    "voc": DatasetRow(
        meaning="PASCAL VOC 2012, or any folder of its layout",
        reader="pipeline.datasets.voc:open_voc",
        split="val",
        protocol="sclip-voc21",
    ),
    "folder": DatasetRow(
        meaning="any folder of images and label PNGs: ROOT/images/SPLIT, ROOT/labels/SPLIT",
        reader="pipeline.datasets.folder:open_folder",
        split="val",
    ),
}


def open_dataset(
    name: str, root: str | Path, split: str | None = None, limit: int | None = None
) -> Dataset:
    """A data set by name.

    Args:
        name: key of `DATASETS`.
        root: its folder.
        split: one of its lists; None takes the row's.
        limit: take only the first images; None takes all.

    Raises:
        ValueError, FileNotFoundError: no such data set, folder or list, or another layout.
    """
    if name not in DATASETS:
        raise ValueError(f"unknown data set {name!r}; valid: {', '.join(DATASETS)}")
    row = DATASETS[name]
    return load_place(row.reader)(root, split or row.split, limit)
