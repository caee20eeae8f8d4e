"""Every setting of the pipeline, in one place, with its default."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

DEFAULT_UPSAMPLER = "bilinear"


@dataclass(frozen=True, kw_only=True, slots=True)
class PipelineConfig:
    """How words become masks. Sizes in pixels of the original image, shares in 0…1.

    Raises:
        ValueError: on construction, naming the field, its value and what is valid.
    """

    attention: str = "csa"  # CLIP's last block: csa, vanilla, maskclip
    upsampler: str = DEFAULT_UPSAMPLER  # none, bilinear, bicubic, jbu, guided, loftup, anyup
    upsampled: str | None = None  # features, scores or probabilities; None: what suits it
    text_space: str | None = None  # LoftUp's way back to text: restored, channel_norm; None: preset
    loftup_share: float | None = None  # of LoftUp's scores, the rest bilinear ones; None: preset
    whole_image: bool = False  # stitch the windows' features and upsample once
    use_pamr: bool = False  # refine the scores with PAMR
    min_confidence: float = 0.7  # least class probability of a prompt region; 0 takes every pixel
    min_region_size: int = 100  # least region size; 1 takes every region
    strategy: str = "pole"  # where to click: pole, centroid, peak, multi
    points_per_region: int = 3  # for "multi"
    negative_points: int = 0  # per prompt, on other classes; 0 is off
    prompt_box: bool = False  # also give SAM the region's box
    prompt_mask: bool = True  # also give SAM the mask of the map around the region
    mask_choice: str = "product"  # of SAM's three: by predicted iou × agreement, or one of them
    min_score: float = 0.5  # below this predicted IoU the region is kept instead; 0 is off
    min_agreement: float = 0.3  # below this IoU with the region, likewise; 0 is off
    iou_threshold: float = 0.8  # masks of one class that overlap more are merged; 1 is off
    precision: str = "float32"  # of the networks' products: float32, bfloat16

    def __post_init__(self) -> None:
        # Not at the top: the programs list the defaults in --help, which need not load torch.
        from models.clip_dense import ATTENTIONS
        from models.device import PRECISIONS
        from models.upsamplers.registry import (
            TEXT_SPACES,
            UPSAMPLED,
            UPSAMPLERS,
            check_upsampled,
        )

        from .masks import RULES
        from .points import STRATEGIES

        choices = {
            "attention": ATTENTIONS,
            "upsampler": tuple(UPSAMPLERS),
            "upsampled": (None, *UPSAMPLED),
            "text_space": (None, *TEXT_SPACES),
            "strategy": tuple(STRATEGIES),
            "mask_choice": RULES,
            "precision": PRECISIONS,
        }
        for field, valid in choices.items():
            value = getattr(self, field)
            if value not in valid:
                names = ", ".join(v for v in valid if v)
                raise ValueError(f"unknown {field} {value!r}; valid: {names}")
        check_upsampled(self.upsampler, self.upsampled)
        for field in ("min_confidence", "min_score", "min_agreement", "iou_threshold"):
            value = getattr(self, field)
            if not 0 <= value <= 1:
                raise ValueError(f"{field} must be between 0 and 1, got {value}")
        for field, least in (
            ("min_region_size", 1),
            ("points_per_region", 1),
            ("negative_points", 0),
        ):
            value = getattr(self, field)
            if value < least:
                raise ValueError(f"{field} must be at least {least}, got {value}")

    def to_dict(self) -> dict[str, object]:
        return dataclasses.asdict(self)
