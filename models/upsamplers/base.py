"""One interface for everything that brings features from patches to pixels.

    upsampler.upsample(features, guide, size)               (B, C, h, w) -> (B, C, H, W)
    upsampler.upsample_scores(features, guide, text, size)  -> cosines with text, (B, Q, H, W)

Those there are, by name: `models.upsamplers.registry`. One's own is a function
`(features, guide, size) -> upsampled`, or a subclass of `Upsampler`.

Shapes: B batch, C feature channels, V channels of values, Q query words, h w low-resolution grid,
H W pixels of the output. A guide is RGB, 0…1.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from ..strips import assemble
from ..windows import cosine_scores

Size = tuple[int, int]  # (H, W)

_STRIP_ELEMENTS = 2**22  # of features held at once


class Upsampler:
    """Brings features to pixels; a subclass gives `upsample`.

    Attributes:
        upsampled: what a segmentor upsamples with it unless told otherwise, see `UPSAMPLED`.
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
        """Upsample, normalise, compare: cosines (B, Q, H, W) float32 with text vectors (Q, C) of
        any length.

        Holds the features of one strip at a time.
        """
        strips = self.strips(features, guide, size)
        return assemble((cosine_scores(strip, text) for strip in strips), size[0])


class LinearUpsampler(Upsampler):
    """One that mixes patches by weights which are the same for all channels.

    Any values on the grid can be upsampled by these weights, word scores for instance: Q channels
    instead of C. With values `cosine_scores(features, text)` that is the commuted form of
    `upsample_scores`: each patch is normalised before the mix, not each pixel after it.
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
        height = values.shape[2]
        # Resizing the identity shows how much every row of the result takes of every row given.
        identity = torch.eye(height, device=values.device)[None, None]
        weights = F.interpolate(identity, (size[0], height), mode=self.mode)[0, 0]
        rows = max(1, _STRIP_ELEMENTS // (values[:, :, 0, 0].numel() * size[1]))
        for part in weights.split(rows):
            strip = part @ values.float()
            yield F.interpolate(strip, (len(part), size[1]), mode=self.mode)


class OwnUpsampler(Upsampler):
    """A user's own upsampler, its answers checked: a function, or a subclass of `Upsampler`."""

    def __init__(self, own: Upsampler | Callable[..., object], name: str = "") -> None:
        self.own = own
        self.name = name or getattr(own, "__name__", type(own).__name__)
        self.upsampled = own.upsampled if isinstance(own, Upsampler) else "features"

    def upsample(self, features: Tensor, guide: Tensor, size: Size) -> Tensor:
        call = self.own.upsample if isinstance(self.own, Upsampler) else self.own
        return self._checked(call(features, guide, size), features, features.shape[1], size)

    def upsample_scores(self, features: Tensor, guide: Tensor, text: Tensor, size: Size) -> Tensor:
        if not isinstance(self.own, Upsampler):
            return super().upsample_scores(features, guide, text, size)
        scores = self.own.upsample_scores(features, guide, text, size)
        self._checked(scores, features, len(text), size)
        if (most := scores.abs().max().item()) > 1 + 1e-3:
            raise ValueError(
                f"upsampler {self.name} must give cosines, which lie in -1…1, got {most:.3g}; "
                "normalise the features that are compared with the words"
            )
        return scores

    def upsample_values(
        self, values: Tensor, features: Tensor, guide: Tensor, size: Size
    ) -> Tensor:
        """Of a `LinearUpsampler`."""
        assert isinstance(self.own, LinearUpsampler)
        mixed = self.own.upsample_values(values, features, guide, size)
        self._checked(mixed, features, values.shape[1], size)
        # Weights that add up to 1 may overshoot a little, as bicubic ones do.
        low, high = values.min().item(), values.max().item()
        slack = high - low + 1e-3
        if mixed.min().item() < low - slack or mixed.max().item() > high + slack:
            raise ValueError(
                f"upsampler {self.name} must mix the values it is given, {low:.3g}…{high:.3g}, "
                f"got {mixed.min().item():.3g}…{mixed.max().item():.3g}: its weights must add to 1"
            )
        return mixed

    @property
    def code(self) -> str | None:
        """SHA-256 of the file it is written in; None where that cannot be told."""
        function = getattr(self.own, "__code__", None)
        module = sys.modules.get(type(self.own).__module__)
        file = function.co_filename if function else getattr(module, "__file__", None)
        if not file or not os.path.isfile(file):
            return None
        with open(file, "rb") as source:
            return hashlib.sha256(source.read()).hexdigest()[:16]

    def _checked(self, found: object, features: Tensor, channels: int, size: Size) -> Tensor:
        expected = (features.shape[0], channels, *size)
        if not isinstance(found, Tensor) or tuple(found.shape) != expected:
            got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(
                f"upsampler {self.name} must give a tensor of shape {expected} for "
                f"features {tuple(features.shape)} and size {tuple(size)}, got {got}"
            )
        if not found.is_floating_point() or not found.isfinite().all():
            raise ValueError(
                f"upsampler {self.name} must give finite floating-point values, got "
                f"{'NaN or infinity' if found.is_floating_point() else found.dtype}"
            )
        return found


def fit_guide(guide: Tensor, size: Size) -> Tensor:
    """The guide (B, 3, H', W') at `size`, float32."""
    if tuple(guide.shape[2:]) == tuple(size):
        return guide.float()
    return F.interpolate(guide.float(), size, mode="bilinear", antialias=True)
