"""Scoring protocols by name: how an image is resized and how word scores become classes.

SCLIP's (Wang et al., arXiv:2312.01597) as published for PASCAL VOC, and those for free
vocabularies. The words are data, see `models/words/`. The maths is in `models.windows` and
`models.scoring`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_WORDS = Path(__file__).resolve().parent / "words"


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol:
    """One way of scoring.

    Attributes:
        name: key in `PROTOCOLS`.
        logit_scale: factor on the cosines before the softmax over all words.
        prob_thd: pixels whose best class is less probable become background; 0 is off.
        area_thd: foreground classes that win at most this share of the foreground's pixels are
            dropped; 0 is off. Both thresholds need background words.
        short_side: the image is resized to this short side, pixels, ...
        long_side: ... unless its long side would exceed this one.
        window: side of CLIP's sliding windows, pixels.
        stride: distance between two windows, pixels.
        background: words for everything that is not a class; empty: every pixel gets a class.
        words: per class its words, for the protocols of a fixed data set; else empty.
    """

    name: str
    logit_scale: float
    prob_thd: float = 0.0
    area_thd: float = 0.0
    short_side: int = 336
    long_side: int = 2048
    window: int = 224
    stride: int = 112
    background: tuple[str, ...] = ()
    words: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        if not self.logit_scale > 0:
            raise ValueError(f"logit_scale must be positive, got {self.logit_scale}")
        for field in ("prob_thd", "area_thd"):
            value = getattr(self, field)
            if not 0 <= value < 1:
                raise ValueError(f"{field} must be in [0, 1), got {value}")
            if value and not self.background:
                raise ValueError(f"{field} {value} needs background words; give some, or 0")
        for field in ("short_side", "long_side", "window", "stride"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1 pixel, got {getattr(self, field)}")
        if self.long_side < self.short_side:
            raise ValueError(
                f"long_side {self.long_side} must not be below short_side {self.short_side}"
            )
        if self.stride > self.window:
            raise ValueError(
                f"stride {self.stride} leaves gaps between windows of {self.window}; "
                "it must not be larger"
            )


def read_words(name: str) -> tuple[tuple[str, ...], ...]:
    """The groups of words in `models/words/<name>.txt`, one group a line."""
    lines = (_WORDS / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return tuple(tuple(word.strip() for word in line.split(",")) for line in lines if line.strip())


_VOC_BACKGROUND, *_VOC21 = read_words("voc21")
_RENDERED_BACKGROUND = sum(read_words("rendered_background"), ())

PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="sclip-voc21",
            logit_scale=65,
            prob_thd=0.1,
            area_thd=0.1,
            background=_VOC_BACKGROUND,
            words=tuple(_VOC21),
        ),
        Protocol(name="sclip-voc20", logit_scale=40, words=read_words("voc20")),
        # Any vocabulary, official weights: SCLIP's background words, no thresholds.
        Protocol(name="open", logit_scale=40, background=_VOC_BACKGROUND),
        # Any vocabulary, the models trained on rendered scenes: that world's surfaces.
        Protocol(name="tiny", logit_scale=40, background=_RENDERED_BACKGROUND),
    )
}


def get_protocol(name: str) -> Protocol:
    """The protocol called `name`.

    Raises:
        ValueError: no such protocol; the message lists those there are.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"unknown protocol {name!r}; valid: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
