"""The settings of the dense step, and what they say together.

Nothing heavy is imported, so programs can list the settings at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from .dense_methods import METHODS, get_method
from .dense_methods.settings import MethodSettings
from .protocols import Protocol, get_protocol
from .settings import check_settings, setting
from .upsamplers.registry import (
    TEXT_SPACES,
    UPSAMPLED,
    as_upsampler,
    check_upsampled,
    get_row,
    upsampled_by,
    upsampler_name,
)

if TYPE_CHECKING:
    from .presets import Preset
    from .upsamplers.base import Upsampler

DEFAULT_UPSAMPLER = "bilinear"
C = TypeVar("C", bound="DenseConfig")


@dataclass(frozen=True, kw_only=True)
class DenseConfig(MethodSettings):
    """Every setting that changes a dense map. `resolved` settles those that are None.

    Raises:
        ValueError: on construction, naming the field, its value and what is valid.
    """

    protocol: str | Protocol | None = setting(None, whose="the preset's")
    statistics: str = setting(
        "clip",
        "of colours, CLIP's images are normalised with: its own (clip), or those that LoftUp's "
        "published weights saw (imagenet)",
        choices=("clip", "imagenet"),
    )
    # A name of UPSAMPLERS, or one's own, see `models.upsamplers`.
    upsampler: str | Upsampler | Callable = DEFAULT_UPSAMPLER
    upsampled: str | None = setting(
        None,
        f"what is upsampled: {', '.join(UPSAMPLED)}",
        choices=UPSAMPLED,
        whose="the upsampler's",
    )
    text_space: str | None = setting(
        None,
        f"how LoftUp's output meets the words: {', '.join(TEXT_SPACES)}",
        choices=TEXT_SPACES,
        whose="the preset's",
    )
    loftup_share: float | None = setting(
        None,
        "weight of LoftUp's scores against bilinear ones, 1 is LoftUp alone",
        least=0,
        greatest=1,
        whose="the preset's",
    )
    whole_image: bool = setting(
        False, "upsample the whole image at once instead of window by window"
    )
    use_pamr: bool = setting(False, "refine the scores with PAMR")
    use_sam: bool = setting(False)  # SAM 2's automatic masks vote on the label map
    precision: str = setting(
        "float32",
        "of the networks' products: float32, or bfloat16 where the device gains by it",
        choices=("float32", "bfloat16"),
    )

    def __post_init__(self) -> None:
        if not isinstance(self.upsampler, str):
            object.__setattr__(self, "upsampler", as_upsampler(self.upsampler))
        else:
            get_row(self.upsampler)
        if isinstance(self.protocol, str):
            object.__setattr__(self, "protocol", get_protocol(self.protocol))
        get_method(self.attention)
        get_row(self.proxy_upsampler)
        check_settings(self)
        check_upsampled(self.upsampler, self.upsampled)

    def changed(self: C, **changes: Any) -> C:
        """Other settings, checked; another upsampler or method has what suits it."""
        if "upsampler" in changes:
            changes = {"upsampled": None} | changes
        if "attention" in changes:
            changes = {"proxy": None, "map_correction": None} | changes
        return dataclasses.replace(self, **changes)

    def resolved(self: C, preset: Preset) -> C:
        """No setting is None: what the preset and the upsampler say where the user does not."""
        settled = {
            "protocol": preset.protocol,
            "upsampled": upsampled_by(self.upsampler)[0],
            "text_space": preset.text_space,
            "loftup_share": preset.loftup_share,
            "proxy": preset.proxy_of(self.attention),
            "map_correction": METHODS[self.attention].correction,
        }
        open_ = {name: value for name, value in settled.items() if getattr(self, name) is None}
        return dataclasses.replace(self, **open_)

    @property
    def encoding(self) -> tuple[Any, ...]:
        """The settings that an `EncodedImage` depends on."""
        method = tuple(self.method().items())
        return self.statistics, self.protocol, self.precision, method

    @property
    def region_finding(self) -> tuple[Any, ...]:
        """The settings that an image's regions depend on; empty where there are none."""
        source = tuple(self.region_source().items())
        protocol = (self.protocol,) if self.regions == "proxy" else ()
        return (*source, *protocol, self.precision) if source else ()

    def to_dict(self) -> dict[str, Any]:
        """JSON types; an upsampler of one's own by its name and the digest of its source."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        if isinstance(self.protocol, Protocol):
            values["protocol"] = dataclasses.asdict(self.protocol)
        values["upsampler"] = upsampler_name(self.upsampler)
        if code := getattr(self.upsampler, "code", None):  # of one's own, as it is wrapped here
            values["upsampler_code"] = code
        return values


DENSE_FIELDS = tuple(f.name for f in dataclasses.fields(DenseConfig))
