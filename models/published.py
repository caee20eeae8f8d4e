"""How methods were run on the eight usual data sets, and what they scored there. Data only.

`SETTINGS` become the protocols METHOD-DATASET of `models.protocols`; `FIGURES` are printed beside
what is measured. All with CLIP ViT-B/16 and the 80 templates of ImageNet, as the authors' code
sets it: github.com/wangf3014/SCLIP, sinahmr/NACLIP, mc-lan/ClearCLIP, mc-lan/ProxyCLIP,
zdk258/CorrCLIP.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# Data set → file in models/words of its classes' own names.
NAMES = {
    "voc21": "voc_names",
    "voc20": "voc_names",
    "context60": "context59",
    "context59": "context59",
    "coco_object": "coco_names",
    "coco_stuff": "coco_stuff",
    "cityscapes": "cityscapes",
    "ade20k": "ade20k",
}

# Data sets that score background: the first line of their word lists is the background's words.
WITH_BACKGROUND = ("voc21", "context60", "coco_object")

_PROXYCLIP: dict[str, dict[str, Any]] = {
    "all": {"logit_scale": 40, "window": 336, "stride": 112},
    "voc21": {"prob_thd": 0.2, "words": "proxyclip_voc21"},
    "voc20": {"words": "proxyclip"},
    "context60": {"prob_thd": 0.15},
    "coco_object": {"prob_thd": 0.25},
    "cityscapes": {"short_side": 448, "window": 224},
    "ade20k": {"short_side": 448},
}
_SCLIP_OBJECT = {"prob_thd": 0.1, "words": "coco_object_sclip"}

# Method → "all" or a data set → fields of `Protocol`; `words` is a file in models/words, the data
# set's name where none is given.
SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "sclip": {
        "all": {"logit_scale": 40},
        "voc21": {"logit_scale": 65, "prob_thd": 0.1, "area_thd": 0.1},
        "context60": {"logit_scale": 50, "prob_thd": 0.1},
        "coco_object": {"logit_scale": 50} | _SCLIP_OBJECT,
        "coco_stuff": {"short_side": 448},
        "cityscapes": {"short_side": 560},
    },
    "proxyclip": _PROXYCLIP,
    "naclip": {
        "all": {"logit_scale": 40, "pamr": True, "drop_remainder": True},
        "voc21": {"prob_thd": 0.1, "window": None},
        "voc20": {"window": None},
        "context60": {"prob_thd": 0.1},
        "coco_object": _SCLIP_OBJECT,
        "cityscapes": {"short_side": 560},
    },
    "clearclip": {
        "all": {"logit_scale": 50, "short_side": 448, "window": 448, "stride": 224},
        "voc21": {"prob_thd": 0.5, "words": "voc21_clearclip"},
        "voc20": {"words": "proxyclip"},
        "context60": {"prob_thd": 0.15},
        "coco_object": {"prob_thd": 0.4, "words": "coco_object_clearclip"},
        "cityscapes": {"window": 224},
    },
    "corrclip": _PROXYCLIP
    | {
        "voc21": {"prob_thd": 0.2, "words": "voc21_corrclip"},
        "coco_object": {"prob_thd": 0.25, "words": "coco_object_corrclip"},
    },
}


@dataclass(frozen=True, slots=True)
class Figure:
    """One published number.

    Attributes:
        protocol: what it was measured under, METHOD-DATASET.
        arm: of a benchmark, that does the same.
        miou: percent.
        source: where it stands.
        differs: what this project's protocol or arm does otherwise; "" where nothing is known.
    """

    protocol: str
    arm: str
    miou: float
    source: str
    differs: str = ""


# In the order of the columns below.
_COLUMNS = ("voc21", "voc20", "context60", "context59", "coco_object", "coco_stuff", "cityscapes",
            "ade20k")  # fmt: skip
_SECONDARY = "a table in another paper"
_META = "MetaCLIP's weights and SAM 2 large's masks; its own words on most data sets"
_ROWS: tuple[tuple[str, str, str, str, tuple[float, ...]], ...] = (
    ("sclip", "bilinear", "the README of SCLIP's repository", "",
     (59.63, 81.54, 31.74, 34.46, 33.52, 22.77, 32.34, 16.45)),
    ("naclip", "bilinear+naclip", "the README of NACLIP's repository", "",
     (64.07, 83.03, 34.99, 38.35, 36.19, 25.69, 38.27, 19.05)),
    ("clearclip", "bilinear+clearclip", _SECONDARY, "",
     (51.8, 80.9, 32.6, 35.9, 33.0, 23.9, 30.0, 16.7)),
    ("proxyclip", "bilinear+proxy", f"{_SECONDARY} (DINO ViT-B/8)", "",
     (61.3, 80.3, 35.3, 39.1, 37.5, 26.5, 38.1, 20.2)),
    ("corrclip", "bilinear+corr", "the README of CorrCLIP's repository", _META,
     (74.8, 88.8, 44.2, 48.8, 43.7, 31.6, 49.4, 26.9)),
)  # fmt: skip

# ProxyCLIP with the proxy's features upsampled 8×, by the upsampler.
_UPSAMPLED = {"bilinear": (25.78, 34.56, 19.53), "loftup": (27.82, 38.82, 21.29)}
_LOFTUP = "windows of 336; whatever else its paper does not say is as for ProxyCLIP"

FIGURES: tuple[Figure, ...] = (
    *(
        Figure(f"{method}-{dataset}", arm, miou, source, differs)
        for method, arm, source, differs, values in _ROWS
        for dataset, miou in zip(_COLUMNS, values, strict=True)
    ),
    *(
        Figure(
            f"proxyclip-{dataset}",
            f"bilinear+proxy+proxy=dinov2_vits14+proxy_scale=8+proxy_upsampler={upsampler}",
            miou,
            "the LoftUp paper, table 4",
            _LOFTUP,
        )
        for upsampler, values in _UPSAMPLED.items()
        for dataset, miou in zip(_COLUMNS[5:], values, strict=True)
    ),
)

# What a whole table is made of: method → the part of an arm's name that stands for it, if any.
METHODS = {method: arm.partition("+")[2] for method, arm, *_ in _ROWS}
TOLERANCE = 1.0  # points that a repetition may differ by; weights and libraries change the digits
