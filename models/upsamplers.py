"""One interface for everything that brings features from patches to pixels.

    upsampler.upsample(features, guide, size)               (B, C, h, w) -> (B, C, H, W)
    upsampler.upsample_scores(features, guide, text, size)  -> cosines with text, (B, Q, H, W)

| name | class | needs |
| --- | --- | --- |
| none, bilinear, bicubic | `Resize` | nothing |
| jbu | `JointBilateral` | nothing |
| guided | `GuidedFilter` | nothing |
| anyup | `AnyUpUpsampler` | trained weights, the same for all features |
| loftup | `LoftUpUpsampler` | weights trained for the features |

One's own is a function `(features, guide, size) -> upsampled`, or a subclass of `Upsampler`.

Shapes: B batch, C feature channels, V channels of values, Q query words, h w low-resolution grid,
H W pixels of the output. A guide is RGB, 0…1.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from .anyup import AnyUp
from .device import autocast
from .guided_filter import guided_filter_strips
from .joint_bilateral import joint_bilateral_strips
from .loftup import LoftUp, restore_text_space
from .presets import ANYUPS, DEFAULT_ANYUP, LOFTUPS
from .strips import assemble, resized_rows
from .weights import load_anyup, load_loftup
from .windows import cosine_scores

Size = tuple[int, int]  # (H, W)

TEXT_SPACES = ("restored", "channel_norm")
UPSAMPLED = ("features", "scores", "probabilities")  # what can be enlarged
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_STRIP_ELEMENTS = 2**22  # of features held at once


class Upsampler:
    """Brings features to pixels; a subclass gives `upsample`.

    Attributes:
        upsampled: what a segmentor enlarges with it unless told otherwise, see `UPSAMPLED`.
    """

    upsampled = "features"

    def upsample(self, features: Tensor, guide: Tensor, size: Size) -> Tensor:
        """Features at pixels, in the space of the features given.

        Args:
            features: (B, C, h, w).
            guide: (B, 3, H, W), RGB 0…1, the image that the features are of; the built-in
                upsamplers resize one of another size.
            size: (H, W).

        Returns:
            (B, C, H, W).
        """
        raise NotImplementedError

    def strips(self, features: Tensor, guide: Tensor, size: Size) -> Iterator[Tensor]:
        """`upsample` in strips (B, C, rows, W) from top to bottom; here, all in one."""
        yield self.upsample(features, guide, size)

    def upsample_scores(self, features: Tensor, guide: Tensor, text: Tensor, size: Size) -> Tensor:
        """Upsample, normalise, compare: cosines (B, Q, H, W) float32 with text vectors (Q, C).

        Holds the features of one strip at a time.
        """
        strips = self.strips(features, guide, size)
        return assemble((cosine_scores(strip, text) for strip in strips), size[0])


class LinearUpsampler(Upsampler):
    """One that mixes cells by weights which are the same for all channels.

    Any values on the grid can be enlarged by these weights, word scores for instance: Q channels
    instead of C. With values `cosine_scores(features, text)` that is the commuted form of
    `upsample_scores`: each cell is normalised before the mix, not each pixel after it.
    """

    upsampled = "scores"

    def upsample_values(
        self, values: Tensor, features: Tensor, guide: Tensor, size: Size
    ) -> Tensor:
        """Values (B, V, h, w) at pixels, (B, V, H, W), by the weights of features and guide."""
        return assemble(self.value_strips(values, features, guide, size), size[0])

    def value_strips(
        self, values: Tensor, features: Tensor, guide: Tensor, size: Size
    ) -> Iterator[Tensor]:
        """`upsample_values` in strips (B, V, rows, W); a subclass gives this."""
        raise NotImplementedError

    def upsample(self, features: Tensor, guide: Tensor, size: Size) -> Tensor:
        return self.upsample_values(features, features, guide, size)

    def strips(self, features: Tensor, guide: Tensor, size: Size) -> Iterator[Tensor]:
        return self.value_strips(features, features, guide, size)


class Resize(LinearUpsampler):
    """Without a look at the image: nearest-exact, bilinear or bicubic."""

    def __init__(self, mode: str) -> None:
        self.mode = mode

    def upsample_values(
        self, values: Tensor, features: Tensor, guide: Tensor, size: Size
    ) -> Tensor:
        return F.interpolate(values.float(), size, mode=self.mode)

    def value_strips(
        self, values: Tensor, features: Tensor, guide: Tensor, size: Size
    ) -> Iterator[Tensor]:
        rows = max(1, _STRIP_ELEMENTS // (values[:, :, 0, 0].numel() * size[1]))
        for top in range(0, size[0], rows):
            yield resized_rows(values.float(), size, self.mode, top, min(top + rows, size[0]))


class JointBilateral(LinearUpsampler):
    """See `models.joint_bilateral`."""

    def value_strips(
        self, values: Tensor, features: Tensor, guide: Tensor, size: Size
    ) -> Iterator[Tensor]:
        return joint_bilateral_strips(values.float(), fit_guide(guide, size))


class GuidedFilter(LinearUpsampler):
    """See `models.guided_filter`."""

    def value_strips(
        self, values: Tensor, features: Tensor, guide: Tensor, size: Size
    ) -> Iterator[Tensor]:
        return guided_filter_strips(values.float(), fit_guide(guide, size))


class AnyUpUpsampler(LinearUpsampler):
    """AnyUp; its weights come from features and guide, its values are mixed as they are."""

    upsampled = "features"  # as published; scores are cheaper

    def __init__(self, anyup: AnyUp) -> None:
        self.anyup = anyup

    def value_strips(
        self, values: Tensor, features: Tensor, guide: Tensor, size: Size
    ) -> Iterator[Tensor]:
        mean, std = (
            torch.tensor(v, device=guide.device).view(3, 1, 1)
            for v in (_IMAGENET_MEAN, _IMAGENET_STD)
        )
        image = (guide.float() - mean) / std
        return self.anyup.strips(values.float(), image, features.float(), size)


class LoftUpUpsampler(Upsampler):
    """LoftUp, and the way from its output back to the space of the features.

    Args:
        loftup: trained for the features.
        text_space: "restored" undoes its channel norm; "channel_norm" leaves the output as it is.
        dtype: of its convolutions and products.
    """

    def __init__(
        self,
        loftup: LoftUp,
        text_space: str = "restored",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if text_space not in TEXT_SPACES:
            raise ValueError(f"unknown text_space {text_space!r}; valid: {', '.join(TEXT_SPACES)}")
        self.loftup, self.text_space, self.dtype = loftup, text_space, dtype

    def upsample(self, features: Tensor, guide: Tensor, size: Size) -> Tensor:
        with autocast(features.device, self.dtype):
            upsampled = self.loftup(features, fit_guide(guide, size))
        if self.text_space == "channel_norm":
            return upsampled
        return restore_text_space(upsampled, features, self.loftup.channelnorm.norm)

    def upsample_scores(self, features: Tensor, guide: Tensor, text: Tensor, size: Size) -> Tensor:
        restore = self.text_space == "restored"
        guide = fit_guide(guide, size)
        with autocast(features.device, self.dtype):
            return self.loftup.upsample_scores(features, guide, text, restore=restore)


class FunctionUpsampler(Upsampler):
    """A user's own function `(features, guide, size) -> upsampled`."""

    def __init__(self, function: Callable[[Tensor, Tensor, Size], Tensor]) -> None:
        self.function = function

    def upsample(self, features: Tensor, guide: Tensor, size: Size) -> Tensor:
        upsampled = self.function(features, guide, size)
        expected = (*features.shape[:2], *size)
        found = tuple(upsampled.shape) if isinstance(upsampled, Tensor) else type(upsampled)
        if found != expected:
            raise ValueError(
                f"upsampler {upsampler_name(self)} must give a tensor of shape {expected} for "
                f"features {tuple(features.shape)} and size {tuple(size)}, got {found}"
            )
        return upsampled


SIMPLE: dict[str, LinearUpsampler] = {
    "none": Resize("nearest-exact"),
    "bilinear": Resize("bilinear"),
    "bicubic": Resize("bicubic"),
    "jbu": JointBilateral(),
    "guided": GuidedFilter(),
}
UPSAMPLERS = (*SIMPLE, "loftup", "anyup")


def fit_guide(guide: Tensor, size: Size) -> Tensor:
    """The guide (B, 3, H', W') at `size`, float32."""
    if tuple(guide.shape[2:]) == tuple(size):
        return guide.float()
    return F.interpolate(guide.float(), size, mode="bilinear", antialias=True)


def check_upsampled(upsampler: str | Upsampler, upsampled: str | None) -> None:
    """Refuse what an upsampler cannot enlarge; None, its own choice, is always right.

    Raises:
        ValueError: that, or an unknown name.
    """
    if upsampled is None or upsampled == "features":
        return
    if upsampled not in UPSAMPLED:
        raise ValueError(f"unknown upsampled {upsampled!r}; valid: {', '.join(UPSAMPLED)}")
    if not isinstance(upsampler, LinearUpsampler) and upsampler not in (*SIMPLE, "anyup"):
        raise ValueError(
            f"upsampler {upsampler_name(upsampler)} enlarges features, not {upsampled}: take "
            "upsampled 'features' or another upsampler"
        )


def load_upsampler(
    name: str,
    weights: str | os.PathLike | None = None,
    *,
    device: str | torch.device = "cpu",
) -> Upsampler:
    """An upsampler by name, alone: for features of one's own.

    Args:
        name: none, bilinear, bicubic, jbu, guided; anyup, or one of `models.presets.ANYUPS`;
            loftup, or one of `models.presets.LOFTUPS`, each made for one backbone.
        weights: a checkpoint file, or an address for AnyUp; loftup has no default.
        device: where its networks go.

    Raises:
        ValueError: no such upsampler; the message lists those there are.
        WeightsNotFoundError, WeightsError: see `models.weight_files`.
    """
    families = {"anyup": (*ANYUPS, "anyup"), "loftup": (*LOFTUPS, "loftup")}
    if weights is not None and name not in families:
        raise ValueError(f"weights {str(weights)!r} need upsampler anyup or loftup, got {name!r}")
    if name in SIMPLE:
        return SIMPLE[name]
    if name in families["anyup"]:
        default = DEFAULT_ANYUP if name == "anyup" else name
        return AnyUpUpsampler(load_anyup(weights or default).to(device))
    if name in families["loftup"]:
        return LoftUpUpsampler(load_loftup(weights or name).to(device))
    valid = ", ".join((*SIMPLE, *families["anyup"], *families["loftup"]))
    raise ValueError(f"unknown upsampler {name!r}; valid: {valid}")


def as_upsampler(own: object) -> Upsampler:
    """A user's own upsampler: an `Upsampler` as it is, a function wrapped.

    Raises:
        ValueError: neither.
    """
    if isinstance(own, Upsampler):
        return own
    if not callable(own) or isinstance(own, type):
        raise ValueError(
            f"upsampler must be one of {', '.join(UPSAMPLERS)}, a function (features, guide, size) "
            f"or an object of a subclass of Upsampler, got {own!r}"
        )
    return FunctionUpsampler(own)


def upsampler_name(upsampler: str | Upsampler) -> str:
    """What to call it in results and messages."""
    if isinstance(upsampler, FunctionUpsampler):
        function = upsampler.function
        return getattr(function, "__name__", type(function).__name__)
    return upsampler if isinstance(upsampler, str) else type(upsampler).__name__
