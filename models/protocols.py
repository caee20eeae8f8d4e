"""Scoring protocols by name: how an image is resized and how word scores become classes.

Those of SCLIP (Wang et al., arXiv:2312.01597), ProxyCLIP (Lan et al., arXiv:2408.04883), NACLIP
(Hajimiri et al., arXiv:2404.08181), ClearCLIP (Lan et al., arXiv:2407.12442) and CorrCLIP (Zhang et
al., arXiv:2411.10086) on the usual data sets, see `models.published`, and those for free
vocabularies. A protocol is the setting around a model: it does not change CLIP's attention. The
words are data, see `models/words/`. The maths is in `models.windows` and `models.scoring`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .published import NAMES, SETTINGS, WITH_BACKGROUND
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
            valid = listed(name for name, other in PROTOCOLS.items() if other.words)
            raise ValueError(
                f"protocol {self.name!r} has no classes of its own; those with: {valid}"
            )
        return Vocabulary(self.class_names, self.words, self.background)


def read_words(name: str) -> tuple[tuple[str, ...], ...]:
    """The groups of words in `models/words/<name>.txt`, one group a line."""
    lines = (_WORDS / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return tuple(tuple(word.strip() for word in line.split(",")) for line in lines if line.strip())


def class_names(dataset: str) -> tuple[str, ...]:
    """The names of a data set's classes, in the order of its labels; see `published.NAMES`."""
    return sum(read_words(NAMES[dataset]), ())


def rendered_names(dataset: str) -> tuple[str, ...]:
    """The names of the classes of the rendered scenes that stand in for a data set."""
    return tuple(words[0] for words in _rendered_words(dataset)[1])


def _published() -> Iterator[Protocol]:
    """The protocols METHOD-DATASET."""
    for method, settings in SETTINGS.items():
        for dataset in NAMES:
            fields: dict[str, Any] = (
                {"words": dataset} | settings["all"] | settings.get(dataset, {})
            )
            words = read_words(fields.pop("words"))
            background, words = (words[0], words[1:]) if dataset in WITH_BACKGROUND else ((), words)
            yield Protocol(
                name=f"{method}-{dataset}",
                class_names=class_names(dataset),
                words=words,
                background=background,
                **fields,
            )


def _rendered_words(dataset: str) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Background words and the words of each class."""
    words = read_words(f"rendered_{dataset}")
    return (words[0], words[1:]) if dataset in WITH_BACKGROUND else ((), words)


_VOC_NAMES = class_names("voc21")
_VOC_BACKGROUND = read_words("voc21")[0]
_RENDERED_VOC = read_words("rendered_voc")
_RENDERED_BACKGROUND = sum(read_words("rendered_background"), ())

PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        *_published(),
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
        # Rendered scenes in the layout of a data set, with as many classes, see `models/words`.
        *(
            Protocol(
                name=f"rendered-{dataset}",
                logit_scale=40,
                background=_rendered_words(dataset)[0],
                class_names=rendered_names(dataset),
                words=_rendered_words(dataset)[1],
            )
            for dataset in NAMES
            if not dataset.startswith("voc")
        ),
        # VOC's layout rendered: `tiny`'s settings (but PAMR), the classes that have sprites, ...
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
        raise ValueError(f"unknown protocol {name!r}; valid: {listed(PROTOCOLS)}")
    return PROTOCOLS[name]


def rendered(protocol: Protocol) -> Protocol:
    """A published protocol METHOD-DATASET with the words of the scenes that stand in for DATASET.

    Raises:
        ValueError: it is no such protocol.
    """
    dataset = protocol.name.partition("-")[2]
    if dataset not in NAMES:
        raise ValueError(f"protocol {protocol.name!r} is for no data set that can be rendered")
    own = PROTOCOLS["rendered-voc" if dataset.startswith("voc") else f"rendered-{dataset}"]
    return replace(
        protocol,
        name=f"{protocol.name}-rendered",
        class_names=own.class_names,
        words=own.words,
        background=own.background if protocol.background else (),
    )


def listed(names: Iterable[str]) -> str:
    """Names of protocols for a message; of those that begin alike, only the first is whole."""
    groups: dict[str, list[str]] = {}
    for name in names:
        first, dash, rest = name.partition("-")
        group = groups.setdefault(first, [])
        group.append(f"-{rest}" if group and dash else name)
    return ", ".join(text for group in groups.values() for text in group)
