"""Settings of the dense methods, and what a method is given beside CLIP's tokens.

Nothing heavy is imported, so programs can list the settings at once.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..settings import setting
from . import METHODS

if TYPE_CHECKING:
    from torch import Tensor

SAM2 = "sam2"
REGIONS = (SAM2, "proxy")  # whence regions are
_PROXY = ("proxy", "proxy_scale", "proxy_upsampler")


@dataclass(frozen=True, kw_only=True)
class MethodSettings:
    """How CLIP becomes a dense encoder. Only what the method needs is used."""

    attention: str = setting("csa", f"dense method: {', '.join(METHODS)}", alias="--method")
    proxy: str | None = setting(  # a name of `models.proxies`
        None,
        "second network of proxy and corr: sam2, dino_vitb8, dinov2_vitb14_reg, timm:NAME, …",
        whose="the preset's",
    )
    proxy_upsampler: str = setting("bilinear", "of its features, where --proxy-scale is above 1")
    proxy_scale: int = setting(
        1, "how much its features are upsampled; 1 leaves them as they are", least=1, greatest=16
    )
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
    map_correction: bool | None = setting(
        None,
        "every region takes its most frequent class",
        choices=(True, False),
        whose="on for corr",
    )

    @property
    def uses_proxy(self) -> bool:
        """Whether the settings need a second network."""
        return METHODS[self.attention].proxy or (self.uses_regions and self.regions == "proxy")

    @property
    def uses_regions(self) -> bool:
        """Whether they need regions of the image; of settled ones."""
        return METHODS[self.attention].regions or bool(self.map_correction)

    @property
    def uses_sam2(self) -> bool:
        """Whether proxy or regions are SAM 2's."""
        by_proxy, by_regions = self.uses_proxy, self.uses_regions
        return (by_proxy and self.proxy == SAM2) or (by_regions and self.regions == SAM2)

    def method(self) -> dict[str, Any]:
        """The settings that decide the features, by name; a method's own begin with its name."""
        row, own = METHODS[self.attention], f"{self.attention}_"
        names = [f.name for f in dataclasses.fields(MethodSettings) if f.name.startswith(own)]
        names = [name for name in names if name not in _PROXY]  # the method "proxy" has no others
        found = self._named("attention", *names, *(self._proxy_names if row.proxy else ()))
        return found | (self.region_source() if row.regions else {})

    def region_source(self) -> dict[str, Any]:
        """The settings that decide the regions; none where there are no regions."""
        if not self.uses_regions:
            return {}
        by_proxy = ("region_similarity", *self._proxy_names) if self.regions == "proxy" else ()
        return self._named("regions", *by_proxy)

    def unused(self) -> set[str]:
        """The names of those that say nothing beside the others."""
        used = {"map_correction", *self.method(), *self.region_source()}
        return {f.name for f in dataclasses.fields(MethodSettings)} - used

    @property
    def _proxy_names(self) -> tuple[str, ...]:
        """The settings that decide the second network's features."""
        return _PROXY if self.proxy_scale > 1 else _PROXY[:2]

    def _named(self, *names: str) -> dict[str, Any]:
        return {name: getattr(self, name) for name in names}


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
