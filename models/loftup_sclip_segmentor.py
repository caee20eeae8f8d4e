"""SCLIP whose features are brought to the pixels by LoftUp before they meet the words.

`extract_prompt_points_from_upsampled` can be imported from here too, where users know it.

Shapes: Q query words, D joint width, b windows, h w patch grid, H W pixels of a window.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from .presets import LOFTUPS, Preset, loftup_for
from .protocols import Protocol
from .sclip_segmentor import SCLIPSegmentor
from .upsamplers.base import Resize, Upsampler
from .upsamplers.registry import TEXT_SPACES, UPSAMPLERS
from .upsamplers.trained import LoftUpUpsampler
from .weights import load_loftup
from .windows import Scorer, cosine_scores


class LoftUpSCLIPSegmentor(SCLIPSegmentor):
    """`SCLIPSegmentor` with a switch for LoftUp.

    Args:
        use_loftup: True (the default) is upsampler "loftup", False "bilinear", which gives exactly
            `SCLIPSegmentor`'s results.
        loftup_model_name: one of `models.presets.LOFTUPS` that fits the features, or the path of
            a checkpoint; None takes the preset's (loftup_clip for vit-b16).
        text_space: LoftUp's output lives in the space of its channel norm. "restored" undoes that
            norm before the comparison with text, "channel_norm" compares as it is; None takes the
            preset's.
        loftup_share: word scores are this share of LoftUp's and the rest of bilinear ones, 0…1;
            1 is LoftUp alone; None takes the preset's.
        upsampler: "loftup", or any of `SCLIPSegmentor`'s instead of `use_loftup`.

    The other arguments are `SCLIPSegmentor`'s.

    Raises:
        ValueError: a LoftUp made for other features; the message lists those that fit. LoftUp
            that is to enlarge something else than features. Two answers about LoftUp.
        WeightsNotFoundError, WeightsError: its checkpoint is missing or damaged. There is no
            fall-back to bilinear.
    """

    known = tuple(UPSAMPLERS)

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
        if upsampler is None:
            upsampler = "bilinear" if use_loftup is False else "loftup"
        elif use_loftup is not None and use_loftup != (upsampler == "loftup"):
            raise ValueError(
                f"use_loftup={use_loftup} contradicts upsampler {upsampler!r}: give one of them"
            )
        super().__init__(
            device,
            preset=preset,
            attention=attention,
            protocol=protocol,
            upsampler=upsampler,
            upsampled=upsampled,
            anyup_model=anyup_model,
            whole_image=whole_image,
            use_sam=use_sam,
            use_pamr=use_pamr,
            verbose=verbose,
            batch=batch,
            precision=precision,
        )
        self.text_space = text_space or self.preset.text_space
        if self.text_space not in TEXT_SPACES:
            raise ValueError(
                f"unknown text_space {self.text_space!r}; valid: {', '.join(TEXT_SPACES)}"
            )
        share = self.preset.loftup_share if loftup_share is None else loftup_share
        if not 0 <= share <= 1:
            raise ValueError(f"loftup_share must be between 0 and 1, got {share}")
        self.loftup_share = share
        if not self.use_loftup:
            return
        name = loftup_model_name or self.preset.loftup
        path = Path(name)
        if str(name) in LOFTUPS or not (path.suffix or path.exists()):  # a name, not a file
            loftup_for(self.preset.clip.features, str(name))
        loftup = load_loftup(name)
        width = self.clip.visual.proj.shape[1]
        if loftup.dim != width:
            raise ValueError(
                f"LoftUp {name} upsamples {loftup.dim} channels, the features of "
                f"{self.preset.name} have {width}: give a checkpoint trained for them"
            )
        self.loftup = loftup.to(self.device)
        self._log("LoftUp %s", name)

    @property
    def use_loftup(self) -> bool:
        return self.upsampler == "loftup"

    def _built_in(self, name: str) -> Upsampler:
        if name == "loftup":
            return LoftUpUpsampler(self.loftup, self.text_space, self._dtype)
        return super()._built_in(name)

    def _guide(self, image: Tensor) -> Tensor:
        # LoftUp scales the colours itself, and multiplies what is lost by rounding them before.
        return image if self.use_loftup else super()._guide(image)

    def _scorer(self, text: Tensor) -> Scorer:
        scorer = super()._scorer(text)
        if not self.use_loftup or self.loftup_share == 1:
            return scorer

        def mixed(features: Tensor, guide: Tensor) -> Tensor:
            size = tuple(guide.shape[2:])
            scores = cosine_scores(features, text)
            plain = Resize("bilinear").upsample_values(scores, features, guide, size)
            return torch.lerp(plain, scorer(features, guide), self.loftup_share)

        return mixed


def __getattr__(name: str) -> object:
    # The one name that lives above this package: resolved when asked for, so that importing the
    # models never imports the pipeline.
    if name == "extract_prompt_points_from_upsampled":
        from pipeline.prompts import extract_prompt_points_from_upsampled

        return extract_prompt_points_from_upsampled
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
