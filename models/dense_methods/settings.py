"""Settings of the dense methods, and what a method is given beside CLIP's tokens.

Nothing heavy is imported, so programs can list the settings at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..settings import setting

if TYPE_CHECKING:
    from torch import Tensor

REGIONS = ("sam2", "proxy")


@dataclass(frozen=True, kw_only=True)
class MethodSettings:
    """How CLIP becomes a dense encoder. Only what the method needs is used."""

    attention: str = setting("csa", "dense method, see --help-methods", alias="--method")
    proxy: str | None = setting(
        None, "second network of proxy and corr", whose="the preset's"
    )  # a name of `models.proxies`
    proxy_upsampler: str = setting("bilinear", "how its features are upsampled, if they are")
    proxy_scale: int = setting(1, "by how much; 1 leaves them as they are", least=1, greatest=16)
    regions: str = setting(
        "sam2",
        f"whence corr and map correction have regions: {', '.join(REGIONS)}",
        choices=REGIONS,
    )
    region_similarity: float = setting(
        0.7, "least cosine of a region's cells with its mean (regions proxy)", least=-1, greatest=1
    )
    corr_scope: bool = setting(True, "corr: attend within regions only")
    corr_value: bool = setting(
        True, "corr: likeness as the proxy sees it, instead of CLIP's own queries and keys"
    )
    corr_merge: float = setting(
        0.2, "corr: regions are joined whose cosine is so near the highest; 0 is off", least=0
    )
    corr_spatial: float = setting(1.0, "corr: weight of the spatial branch; 0 is off", least=0)
    corr_semantic: float = setting(0.5, "corr: weight of the semantic branch; 0 is off", least=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """What a method is given beside the tokens.

    Attributes:
        grid: (h, w) of CLIP's patches.
        proxy: (B, C', h', w') features of the second network, or None.
        regions: (B, h', w') int64 on the proxy's grid, −1 where there is none, or None.
        settings: of the method.
    """

    grid: tuple[int, int]
    proxy: Tensor | None = None
    regions: Tensor | None = None
    settings: MethodSettings = MethodSettings()
