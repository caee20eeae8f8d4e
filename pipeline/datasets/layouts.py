"""The layouts of the usual data sets: as mmsegmentation prepares them, or as they are downloaded.

Context (Mottaghi et al., CVPR 2014), COCO-Stuff (Caesar et al., CVPR 2018), ADE20K (Zhou et al.,
CVPR 2017), Cityscapes (Cordts et al., CVPR 2016). VOC has a reader of its own. A data set without
background has no 0 among its scored labels: its protocols have no background words, so 0 is void.
"""

from __future__ import annotations

import numpy as np

from models.protocols import class_names, rendered_names

from .indexed import IGNORE, INVALID, Layout, NamesFile, Place


def _codes(labels: dict[int, int]) -> np.ndarray:
    table = np.full(256, INVALID, np.int16)
    for number, label in labels.items():
        table[number] = label
    return table


def from_one(classes: int) -> np.ndarray:
    """Codes of files in which 1…C are the classes and 0 is background, or unlabelled."""
    return _codes({n: n for n in range(classes + 1)} | {255: IGNORE})


def from_zero(classes: int) -> np.ndarray:
    """Codes of files in which 0…C-1 are the classes and 255 is unlabelled."""
    return _codes({n: n + 1 for n in range(classes)} | {255: IGNORE})


# Numbers of COCO's categories that no image has; 0…90 are things, the rest is stuff.
_COCO_GAPS = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
_COCO_NUMBERS = [n for n in range(182) if n not in _COCO_GAPS]
COCO_STUFF_RAW = _codes({n: i for i, n in enumerate(_COCO_NUMBERS, 1)} | {255: IGNORE})
COCO_OBJECT_RAW = _codes(
    {n: i if n <= 90 else 0 for i, n in enumerate(_COCO_NUMBERS, 1)} | {255: 0}
)
# From road, sidewalk, … to bicycle; the other labelIds are not scored.
_CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
CITYSCAPES_RAW = _codes(
    dict.fromkeys((*range(34), 255), IGNORE) | {n: i for i, n in enumerate(_CITYSCAPES_IDS, 1)}
)


def _coco(suffix: str, prepared: np.ndarray, raw: np.ndarray) -> tuple[Place, ...]:
    """Prepared and raw label maps of COCO, in mmsegmentation's folders or the downloads'."""
    images = ("images/{split}2017/{id}.jpg", "{split}2017/{id}.jpg")
    folders = ("annotations/{split}2017", "stuffthingmaps/{split}2017")
    end = f"{{id}}_{suffix}.png"
    kinds = ((end, prepared, False), ("{id}.png", raw, True))
    return tuple(
        Place(
            image=image,
            label=f"{folder}/{own}",
            codes=codes,
            prepared=f"{folder}/{end}" if is_raw else "",
        )
        for own, codes, is_raw in kinds
        for image in images
        for folder in folders
    )


CONTEXT = Layout(
    name="Pascal Context",
    classes=class_names("context59"),
    rendered=rendered_names("context59"),
    places=(
        Place(
            image="JPEGImages/{id}.jpg",
            label="SegmentationClassContext/{id}.png",
            codes=from_one(59),
        ),
    ),
    # The lists differ by one image between sources.
    sizes={"train": (4996, 4998), "val": (5104, 5105)},
    listing="ImageSets/SegmentationContext/{split}.txt",
    names=(NamesFile(path="59_labels.txt", codes=from_one(59)),),
)
COCO_STUFF = Layout(
    name="COCO-Stuff164k",
    classes=class_names("coco_stuff"),
    rendered=rendered_names("coco_stuff"),
    places=_coco("labelTrainIds", from_zero(171), COCO_STUFF_RAW),
    sizes={"train": (118287,), "val": (5000,)},
    # Its numbers begin at 1.
    names=(NamesFile(path="labels.txt", codes=COCO_STUFF_RAW, offset=-1),),
)
COCO_OBJECT = Layout(
    name="COCO-Object",
    classes=class_names("coco_object"),
    rendered=rendered_names("coco_object"),
    places=_coco("instanceTrainIds", from_one(80), COCO_OBJECT_RAW),
    sizes=COCO_STUFF.sizes,
    names=(NamesFile(path="labels.txt", codes=COCO_OBJECT_RAW, offset=-1),),
)
ADE20K = Layout(
    name="ADE20K-150",
    classes=class_names("ade20k"),
    rendered=rendered_names("ade20k"),
    places=(
        Place(
            image="images/{split}/{id}.jpg",
            label="annotations/{split}/{id}.png",
            codes=from_one(150),
        ),
    ),
    sizes={"training": (20210,), "validation": (2000,)},
    names=(NamesFile(path="objectInfo150.txt", codes=from_one(150)),),
)
_GT_FINE = "gtFine/{split}/{group}/{id}_gtFine_"
CITYSCAPES = Layout(
    name="Cityscapes",
    classes=class_names("cityscapes"),
    rendered=rendered_names("cityscapes"),
    places=tuple(
        Place(
            image="leftImg8bit/{split}/{group}/{id}_leftImg8bit.png",
            label=f"{_GT_FINE}{kind}.png",
            codes=codes,
            prepared="" if kind == "labelTrainIds" else f"{_GT_FINE}labelTrainIds.png",
        )
        for kind, codes in (("labelTrainIds", from_zero(19)), ("labelIds", CITYSCAPES_RAW))
    ),
    sizes={"train": (2975,), "val": (500,)},
)

# By key of the table of data sets; VOC has a reader of its own.
LAYOUTS = {
    "context60": CONTEXT,
    "context59": CONTEXT,
    "coco_object": COCO_OBJECT,
    "coco_stuff": COCO_STUFF,
    "cityscapes": CITYSCAPES,
    "ade20k": ADE20K,
}
open_context, open_coco_stuff, open_coco_object = CONTEXT.open, COCO_STUFF.open, COCO_OBJECT.open
open_ade20k, open_cityscapes = ADE20K.open, CITYSCAPES.open
