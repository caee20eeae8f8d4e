"""What papers report of linear probes on upsampled features: mIoU in percent.

Their data, backbones and views differ from each other and from a run's: they are no reference
values, but say what sizes of gains have been found where. "secondary": from a table about others.
"""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """A row: mIoU by upsampler; "none" is the low-resolution map."""

    data: str
    backbone: str
    view: str
    values: dict[str, float]
    source: str


def _row(data: str, backbone: str, view: str, source: str, **values: float) -> Published:
    return Published(data, backbone, view, values, source)


_LOFTUP, _CLIP = "LoftUp paper", "LoftUp paper, Tab. B.1"
_DINO, _B16, _OTHERS = "DINOv2-S/14", "CLIP ViT-B/16", "secondary"
PUBLISHED = (
    _row("COCO-Stuff-27", _DINO, "224 px", _LOFTUP,
         none=51.21, bilinear=56.15, LiFT=53.35, FeatUp=56.30, LoftUp=61.11),
    _row("Cityscapes", _DINO, "224 px", _LOFTUP,
         none=36.54, bilinear=44.79, LiFT=35.80, FeatUp=44.19, LoftUp=53.10),
    _row("COCO-Stuff-27", _B16, "224 px", _CLIP,
         none=40.30, bilinear=47.12, FeatUp=52.08, LoftUp=52.58),
    _row("Cityscapes", _B16, "224 px", _CLIP,
         none=30.79, bilinear=39.84, FeatUp=33.50, LoftUp=44.66),
    _row("COCO-Stuff-27", _B16, "448 px", _CLIP,
         none=42.14, bilinear=48.32, FeatUp=52.55, LoftUp=53.87),
    _row("Cityscapes", _B16, "448 px", _CLIP,
         none=37.36, bilinear=45.58, FeatUp=40.00, LoftUp=50.14),
    _row("COCO-Stuff-27", _DINO, "448 px", _OTHERS, bilinear=59.4, FeatUp=61.8, LoftUp=62.2,
         JAFAR=61.7, AnyUp=62.1, UPLiFT=62.6),
    _row("VOC", _DINO, "448 px", _OTHERS, bilinear=81.6, FeatUp=83.5, LoftUp=84.6,
         JAFAR=84.4, AnyUp=84.3, UPLiFT=85.2),
    _row("ADE20K", _DINO, "448 px", _OTHERS, bilinear=40.4, FeatUp=42.1, LoftUp=42.2,
         JAFAR=42.0, AnyUp=42.3, UPLiFT=43.0),
    _row("Cityscapes", _DINO, "448 px", _OTHERS, bilinear=59.7, FeatUp=60.5, LoftUp=62.1,
         JAFAR=61.9, AnyUp=61.3, UPLiFT=65.4),
    _row("not told; probe of the low-resolution features", "not told", "not told", _OTHERS,
         bilinear=39.73, AnyUp=40.83, LoftUp=4.27),
)  # fmt: skip
