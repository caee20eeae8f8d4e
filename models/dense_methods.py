"""The dense methods by name, a row each: what CLIP's last block does, and what else it needs.

Nothing heavy is imported before a method runs, so programs can list them at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .places import load_place

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class DenseMethod:
    """One dense method.

    Attributes:
        meaning: what it does, for tables and help.
        block: "module:function" of (visual tower, tokens (B, T, D) before the last block, proxy
            features (B, C', h', w') or None) -> tokens (B, T, D) after it.
        proxy: the second network whose features the block is given: a name of
            `models.backbones.build_backbone`, or "" for none.
    """

    meaning: str
    block: str
    proxy: str = ""

    def load(self) -> Callable[..., Tensor]:
        return load_place(self.block)


METHODS: dict[str, DenseMethod] = {
    "csa": DenseMethod(
        meaning="CLIP's last block as in SCLIP (the default)", block="models.clip_dense:csa"
    ),
    "vanilla": DenseMethod(meaning="CLIP's last block as it is", block="models.clip_dense:vanilla"),
    "maskclip": DenseMethod(
        meaning="CLIP's last block as in MaskCLIP", block="models.clip_dense:maskclip"
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
