"""Scoring protocols by name: how an image is resized and how word scores become classes.

Those of SCLIP (Wang et al., arXiv:2312.01597), ProxyCLIP (Lan et al., arXiv:2408.04883) and NACLIP
(Hajimiri et al., arXiv:2404.08181) for PASCAL VOC, and those for free vocabularies. A protocol is
the setting around a model: it does not change CLIP's attention. The words are data, see
`models/words/`. The maths is in `models.windows` and `models.scoring`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .vocabulary import Vocabulary

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
        window: side of CLIP's sliding windows, pixels; None: the whole image is one window.
        stride: distance between two windows, pixels; unused where the image is one window.
        pamr: the scores are refined with PAMR.
        pamr_original: PAMR works at the image's own size, as NACLIP and SCLIP run it, not at the
            resized one, where its memory does not grow with photographs of many megapixels.
        drop_remainder: of sides that are no multiple of the patch, the patches drop what remains
            and their scores are stretched over the whole side, as in NACLIP; else they are padded.
        merge_synonyms: a class is its best word already in the softmax. Without, as published, two
            equally good synonyms have at most half the probability each.
        background: words for everything that is not a class; empty: every pixel gets a class.
        class_names: the data set's own names of its classes; empty: any vocabulary.
        words: per class its words, as many groups as names.
    """

    name: str
    logit_scale: float
    prob_thd: float = 0.0
    area_thd: float = 0.0
    short_side: int = 336
    long_side: int = 2048
    window: int | None = 224
    stride: int = 112
    pamr: bool = False
    pamr_original: bool = True
    drop_remainder: bool = False
    merge_synonyms: bool = False
    background: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
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
            value = getattr(self, field)
            if value is not None and value < 1:
                raise ValueError(f"{field} must be at least 1 pixel, got {value}")
        if self.long_side < self.short_side:
            raise ValueError(
                f"long_side {self.long_side} must not be below short_side {self.short_side}"
            )
        if self.window is not None and self.stride > self.window:
            raise ValueError(
                f"stride {self.stride} leaves gaps between windows of {self.window}; "
                "it must not be larger"
            )
        if len(self.class_names) != len(self.words):
            raise ValueError(
                f"{len(self.class_names)} class_names need as many groups of words, "
                f"got {len(self.words)}"
            )

    def vocabulary(self) -> Vocabulary:
        """The data set's classes, their words and the background words.

        Raises:
            ValueError: the protocol is for any vocabulary; the message lists those that have one.
        """
        if not self.words:
            valid = ", ".join(name for name, other in PROTOCOLS.items() if other.words)
            raise ValueError(
                f"protocol {self.name!r} has no classes of its own; those with: {valid}"
            )
        return Vocabulary(self.class_names, self.words, self.background)


def read_words(name: str) -> tuple[tuple[str, ...], ...]:
    """The groups of words in `models/words/<name>.txt`, one group a line."""
    lines = (_WORDS / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return tuple(tuple(word.strip() for word in line.split(",")) for line in lines if line.strip())


_VOC_NAMES = sum(read_words("voc_names"), ())
_VOC_BACKGROUND, *_VOC21 = read_words("voc21")
_RENDERED_VOC = read_words("rendered_voc")
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
            class_names=_VOC_NAMES,
            words=tuple(_VOC21),
        ),
        Protocol(
            name="sclip-voc20", logit_scale=40, class_names=_VOC_NAMES, words=read_words("voc20")
        ),
        # ProxyCLIP's repository: configs/cfg_voc21.py and the defaults of its segmentor.
        Protocol(
            name="proxyclip-voc21",
            logit_scale=40,
            prob_thd=0.2,
            window=336,
            background=_VOC_BACKGROUND,
            class_names=_VOC_NAMES,
            words=read_words("proxyclip"),
        ),
        # Its cfg_voc20.py.
        Protocol(
            name="proxyclip-voc20",
            logit_scale=40,
            window=336,
            class_names=_VOC_NAMES,
            words=read_words("proxyclip"),
        ),
        # NACLIP's repository: configs/cfg_voc21.py, cfg_voc20.py and the defaults of naclip.py; the
        # word lists are SCLIP's.
        Protocol(
            name="naclip-voc21",
            logit_scale=40,
            prob_thd=0.1,
            window=None,
            pamr=True,
            drop_remainder=True,
            background=_VOC_BACKGROUND,
            class_names=_VOC_NAMES,
            words=tuple(_VOC21),
        ),
        Protocol(
            name="naclip-voc20",
            logit_scale=40,
            window=None,
            pamr=True,
            drop_remainder=True,
            class_names=_VOC_NAMES,
            words=read_words("voc20"),
        ),
        # What SCLIP's words are worth: its settings with VOC's bare names.
        Protocol(
            name="plain-voc21",
            logit_scale=65,
            prob_thd=0.1,
            area_thd=0.1,
            background=("background",),
            class_names=_VOC_NAMES,
            words=read_words("voc_names"),
        ),
        Protocol(
            name="plain-voc20",
            logit_scale=40,
            class_names=_VOC_NAMES,
            words=read_words("voc_names"),
        ),
        # VOC's layout rendered: the settings of `tiny`, and the classes that have sprites, ...
        Protocol(
            name="rendered-voc",
            logit_scale=40,
            background=_RENDERED_BACKGROUND,
            class_names=sum(_RENDERED_VOC, ()),
            words=_RENDERED_VOC,
        ),
        # ... and by other words for the same.
        *(
            Protocol(
                name=f"rendered-voc-{kind}",
                logit_scale=40,
                background=_RENDERED_BACKGROUND,
                class_names=sum(_RENDERED_VOC, ()),
                words=read_words(f"rendered_voc_{kind}"),
            )
            for kind in ("synonyms", "plurals")
        ),
        # Any vocabulary, official weights: SCLIP's background words, no thresholds.
        Protocol(
            name="open",
            logit_scale=40,
            merge_synonyms=True,
            pamr_original=False,
            background=_VOC_BACKGROUND,
        ),
        # Any vocabulary, the models trained on rendered scenes: that world's surfaces.
        Protocol(
            name="tiny",
            logit_scale=40,
            merge_synonyms=True,
            pamr_original=False,
            background=_RENDERED_BACKGROUND,
        ),
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
