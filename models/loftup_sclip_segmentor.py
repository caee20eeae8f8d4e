"""SCLIP whose features are brought to the pixels by LoftUp before they meet the words.

`extract_prompt_points_from_upsampled` can be imported from here too, where users know it.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import torch

from .dense import DenseConfig
from .networks import Networks
from .presets import Preset
from .protocols import Protocol
from .sclip_segmentor import SCLIPSegmentor
from .upsamplers.base import Upsampler
from .upsamplers.registry import upsampler_choice


class LoftUpSCLIPSegmentor(SCLIPSegmentor):
    """`SCLIPSegmentor` with a switch for LoftUp.

    Args:
        use_loftup: True (the default) is upsampler "loftup", False "bilinear", which gives exactly
            `SCLIPSegmentor`'s results.
        loftup_model_name: one of `models.presets.LOFTUPS` that fits the features, or the path of
            a checkpoint; None takes the preset's (loftup_clip for vit-b16).
        upsampler: "loftup", or any of `SCLIPSegmentor`'s instead of `use_loftup`.

    The other arguments are `SCLIPSegmentor`'s, or settings of `models.dense.DenseConfig`.

    Raises:
        ValueError: a LoftUp made for other features; the message lists those that fit. LoftUp
            that is to upsample something else than features. Two answers about LoftUp.
        WeightsNotFoundError, WeightsError: its checkpoint is missing or damaged. There is no
            fall-back to bilinear.
    """

    def __init__(
        self,
        device: str | torch.device | None = None,
        use_loftup: bool | None = None,
        loftup_model_name: str | os.PathLike | None = None,
        use_sam: bool = False,
        use_pamr: bool = False,
        verbose: bool = True,
        *,
        preset: str | Preset = "vit-b16",
        attention: str = "csa",
        statistics: str = "clip",
        protocol: str | Protocol | None = None,
        upsampler: str | Upsampler | Callable | None = None,
        upsampled: str | None = None,
        anyup_model: str | os.PathLike | None = None,
        whole_image: bool = False,
        text_space: str | None = None,
        loftup_share: float | None = None,
        batch: int = 8,
        precision: str = "float32",
    ) -> None:
        config = DenseConfig(
            protocol=protocol,
            attention=attention,
            statistics=statistics,
            upsampler=upsampler_choice(upsampler, use_loftup, "loftup"),
            upsampled=upsampled,
            text_space=text_space,
            loftup_share=loftup_share,
            whole_image=whole_image,
            use_pamr=use_pamr,
            use_sam=use_sam,
            precision=precision,
        )
        weights = {"loftup": loftup_model_name, "anyup": anyup_model}
        self._load(Networks(preset, device, weights=weights, batch=batch), config, verbose)

    @property
    def use_loftup(self) -> bool:
        return self.config.upsampler == "loftup"


def __getattr__(name: str) -> object:
    # The one name that lives above this package: resolved when asked for, so that importing the
    # models never imports the pipeline.
    if name == "extract_prompt_points_from_upsampled":
        from pipeline.prompts import extract_prompt_points_from_upsampled

        return extract_prompt_points_from_upsampled
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
