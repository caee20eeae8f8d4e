"""The dense methods by name, a row each: how CLIP becomes a dense encoder, and what else it needs.

Nothing heavy is imported before a method runs, so programs can list them at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..places import load_place

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class DenseMethod:
    """One dense method: either `block` or `features`. Places are "module:function".

    Attributes:
        meaning: what it does, for tables and help.
        block: changes CLIP's last block: (visual tower, tokens (B, T, D) before it, `Given`) ->
            tokens (B, T, D) after it.
        features: makes the features, on a grid of its own: (visual tower, tokens before each block,
            `Given`) -> (B, C, h', w').
        proxy: it is given the features of a second network, of the setting `proxy`.
        regions: it is given regions of the image, of the setting `regions`.
        correction: its labels are corrected by regions unless the setting says otherwise.
    """

    meaning: str
    block: str = ""
    features: str = ""
    proxy: bool = False
    regions: bool = False
    correction: bool = False

    def load(self) -> Callable[..., Tensor]:
        return load_place(self.block or self.features)


METHODS: dict[str, DenseMethod] = {
    "csa": DenseMethod(
        meaning="CLIP's last block as in SCLIP (the default)", block="models.clip_dense:csa"
    ),
    "vanilla": DenseMethod(meaning="CLIP's last block as it is", block="models.clip_dense:vanilla"),
    "maskclip": DenseMethod(
        meaning="CLIP's last block as in MaskCLIP: values alone", block="models.clip_dense:maskclip"
    ),
    "naclip": DenseMethod(
        meaning="CLIP's last block as in NACLIP: keys, near ones first",
        block="models.clip_dense:naclip",
    ),
    "clearclip": DenseMethod(
        meaning="CLIP's last block as in ClearCLIP: queries, no residual",
        block="models.clip_dense:clearclip",
    ),
    "proxy": DenseMethod(
        meaning="CLIP's values mixed by a second network's similarity, as in ProxyCLIP",
        features="models.proxy_attention:proxy",
        proxy=True,
    ),
    "corr": DenseMethod(
        meaning="CLIP's values mixed within regions by a second network's similarity, as in "
        "CorrCLIP",
        features="models.corr:corr",
        proxy=True,
        regions=True,
        correction=True,
    ),
}


def get_method(name: str) -> DenseMethod:
    """The method called `name`.

    Raises:
        ValueError: no such method; the message lists those there are.
    """
    if name not in METHODS:
        raise ValueError(f"unknown attention {name!r}; valid: {', '.join(METHODS)}")
    return METHODS[name]
