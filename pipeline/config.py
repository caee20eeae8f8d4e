"""Every setting of the pipeline, in one place, with its default."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from models.dense import DEFAULT_UPSAMPLER as DEFAULT_UPSAMPLER
from models.dense import DENSE_FIELDS as DENSE_FIELDS
from models.dense import DenseConfig
from models.settings import setting

from .sizes import Size, parse_size


@dataclass(frozen=True, kw_only=True)
class PipelineConfig(DenseConfig):
    """How words become masks. Sizes in pixels of the original image, shares in 0…1.

    The settings of the dense map are inherited; these are of the masks. A field with a help text
    is an option of the programs.

    Raises:
        ValueError: on construction, naming the field, its value and what is valid.
    """

    min_confidence: float = setting(
        0.7, "least class probability of a prompt region", least=0, greatest=1
    )
    min_region_size: Size = setting(
        100, "least region size, pixels, or a share of the image: 0.1%%", least=1, kind=parse_size
    )
    strategy: str = setting(
        "pole",
        "where to click: pole, centroid, peak, multi",
        choices=("pole", "centroid", "peak", "multi"),
    )
    points_per_region: int = setting(3, "clicks per region of the multi strategy", least=1)
    negative_points: int = setting(0, "clicks per prompt on other classes", least=0)
    prompt_box: bool = setting(False, "also give SAM 2 each region's box")
    prompt_mask: bool = setting(True, "also give SAM 2 each region's mask")
    # Of SAM's three masks: by predicted IoU × agreement with the region, or by one of them.
    mask_choice: str = setting("product", choices=("product", "iou", "agreement"))
    min_score: float = setting(
        0.5, "below this predicted IoU a mask falls back to its region", least=0, greatest=1
    )
    min_agreement: float = setting(
        0.3, "below this IoU with its region likewise", least=0, greatest=1
    )
    iou_threshold: float = setting(
        0.8, "masks of one class that overlap more are merged", least=0, greatest=1
    )


# What shapes the masks, not the dense map.
FINAL_FIELDS = tuple(
    field.name for field in dataclasses.fields(PipelineConfig) if field.name not in DENSE_FIELDS
)
