"""The data sets by name, a row each: how one is opened, and what scores it.

To add one: a module with its reader (`base.Dataset`), its words and protocol in `models`, a row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from models.places import load_place

if TYPE_CHECKING:
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
        folders: where it usually lies in a folder of data sets.
        render: "module:function" of (root, images=, seed=), which renders scenes of its layout; ""
            for none.
        rendered_protocol: of these.
    """

    meaning: str
    reader: str
    split: str
    protocol: str = ""
    folders: tuple[str, ...] = ()
    render: str = ""
    rendered_protocol: str = ""


def _row(dataset: str, reader: str, meaning: str, split: str, *folders: str) -> DatasetRow:
    """Of a reader in `layouts`."""
    return DatasetRow(
        meaning=meaning,
        reader=f"pipeline.datasets.layouts:open_{reader}",
        split=split,
        protocol=f"sclip-{dataset}",
        folders=folders,
        render=f"pipeline.datasets.rendered_layouts:render_{reader}",
        rendered_protocol=f"rendered-{dataset}",
    )


_CONTEXT_FOLDERS = ("VOCdevkit/VOC2010", "VOC2010", "pcontext/VOCdevkit/VOC2010")
_COCO_FOLDERS = ("coco_stuff164k", "coco")
_VOC21 = DatasetRow(
    meaning="PASCAL VOC 2012, or any folder of its layout, with background",
    reader="pipeline.datasets.voc:open_voc",
    split="val",
    protocol="sclip-voc21",
    folders=("VOCdevkit/VOC2012", "VOC2012"),
    render="pipeline.datasets.rendered_voc:render_voc",
    rendered_protocol="rendered-voc",
)

DATASETS: dict[str, DatasetRow] = {
    "voc21": _VOC21,
    "voc20": replace(_VOC21, meaning="the same without background", protocol="sclip-voc20"),
    "context60": _row(
        "context60", "context", "Pascal Context, 59 classes and background", "val",
        *_CONTEXT_FOLDERS,
    ),
    "context59": _row(
        "context59", "context", "the same without background", "val", *_CONTEXT_FOLDERS
    ),
    "coco_object": _row(
        "coco_object", "coco_object", "COCO's 80 things and background", "val",
        "coco_object", *_COCO_FOLDERS,
    ),
    "coco_stuff": _row(
        "coco_stuff", "coco_stuff", "COCO-Stuff164k, 171 things and stuff", "val", *_COCO_FOLDERS
    ),
    "cityscapes": _row("cityscapes", "cityscapes", "Cityscapes, 19 classes", "val", "cityscapes"),
    "ade20k": _row(
        "ade20k", "ade20k", "ADE20K, 150 classes", "validation",
        "ade/ADEChallengeData2016", "ADEChallengeData2016", "ade20k",
    ),
    "folder": DatasetRow(
        meaning="any folder of images and label PNGs: ROOT/images/SPLIT, ROOT/labels/SPLIT",
        reader="pipeline.datasets.folder:open_folder",
        split="val",
    ),
    "coco_stuff_27": DatasetRow(
        meaning="COCO-Stuff's 27 coarse classes, from its raw label maps",
        reader="pipeline.datasets.folder:open_coco_stuff_27",
        split="val",
    ),
}  # fmt: skip


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


def find_root(name: str, data: str | Path) -> Path:
    """A data set's folder in a folder of data sets.

    Raises:
        FileNotFoundError: it is in none of the usual places.
    """
    data = Path(data)
    for folder in (places := DATASETS[name].folders):
        if (data / folder).is_dir():
            return data / folder
    raise FileNotFoundError(f"{name} not found in '{data}': no {' and no '.join(places)} there")


def render_dataset(name: str, root: str | Path, *, images: int, seed: int) -> None:
    """Render scenes in the layout of a data set, see `rendered_voc` and `rendered_layouts`."""
    load_place(DATASETS[name].render)(root, images=images, seed=seed)
