"""The dense step: an image and words in, a dense class map out. Settings: `models.dense_config`.

Sliding windows of CLIP features, cosines with the text vectors, upsampling, class probabilities.
Nothing heavy is imported before a step runs, so programs can list the settings at once.

Shapes: Q query words, K classes, D joint width, h w patch grid, H W pixels of the image given,
h' w' pixels of the resized image.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from .dense_config import DEFAULT_UPSAMPLER as DEFAULT_UPSAMPLER  # users take these from here
from .dense_config import DENSE_FIELDS as DENSE_FIELDS
from .dense_config import DenseConfig
from .protocols import Protocol
from .upsamplers.registry import UPSAMPLERS

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

    from .backbones.base import Backbone
    from .images import ImageSource
    from .networks import Networks
    from .upsamplers.base import Upsampler
    from .vocabulary import Vocabulary
    from .windows import Scorer, WindowFeatures

logger = logging.getLogger(__name__)

D = TypeVar("D", bound="Dense")
PAMR_STEPS, PAMR_DILATIONS = 10, (8, 16)  # SCLIP's and NACLIP's setting


@dataclass(frozen=True, kw_only=True)
class EncodedImage:
    """CLIP's view of one image, to be scored against any number of vocabularies."""

    image: np.ndarray  # (H, W, 3) uint8 RGB, as given
    windows: WindowFeatures
    seconds: float  # of CLIP and its second network
    regions: np.ndarray | None = None  # (H, W) int32, see `models.regions`
    regions_seconds: float = 0.0

    @property
    def size(self) -> tuple[int, int]:
        return self.image.shape[0], self.image.shape[1]

    @property
    def timings(self) -> dict[str, float]:
        """Seconds per stage."""
        regions = {} if self.regions is None else {"regions": self.regions_seconds}
        return regions | {"clip": self.seconds}


@dataclass(frozen=True, kw_only=True)
class DenseResult:
    """A dense class map."""

    labels: np.ndarray  # (H, W) int64, index into `Vocabulary.competitors`: the classes, those not
    # wanted, the background
    probs: np.ndarray  # (K, H, W) float32, of all of these
    features: Tensor | None  # (D, H, W) float32, at pixels
    timings: dict[str, float] = field(default_factory=dict)  # seconds per stage


class Dense:
    """The dense step: networks and settings.

    Args:
        networks: loads what the settings need when it is first needed.
        config: settings; what is None is settled by the networks' preset.

    Raises:
        ValueError: a precision that the device is not faster with.
    """

    verbose = False  # log how long each image took at level INFO instead of DEBUG

    def __init__(self, networks: Networks, config: DenseConfig | None = None) -> None:
        self.networks = networks
        self._set(config or DenseConfig())

    def _set(self, config: DenseConfig) -> None:
        from .device import check_precision

        self.config = config.resolved(self.networks.preset)
        self.dtype = check_precision(self.config.precision, self.networks.device)

    def with_config(self: D, **changes: Any) -> D:
        """The same networks under other settings, see `DenseConfig`.

        Raises:
            ValueError: a setting there is not, or a value it does not have.
        """
        other = copy.copy(self)  # of a subclass, with whatever else it holds
        other._set(self.config.changed(**changes))
        return other

    @property
    def device(self) -> torch.device:
        return self.networks.device

    @property
    def protocol(self) -> Protocol:
        assert isinstance(self.config.protocol, Protocol), "it is resolved"
        return self.config.protocol

    def encode_text(self, words: Sequence[str]) -> Tensor:
        """Unit vectors (Q, D) of words; remembered."""
        return self.networks.text(self.dtype)(words)

    def encode(self, image: ImageSource, *, regions: np.ndarray | None = None) -> EncodedImage:
        """Run CLIP's image side, the costly part that no word changes.

        Args:
            image: file, PIL image or array.
            regions: of the image, where the settings need them and they are known.
        """
        import torch

        from .backbones.base import normalise
        from .device import autocast, clock
        from .images import load_image
        from .windows import encode_windows, resize_for_protocol

        start = clock(self.device)
        pixels = load_image(image)
        if self.config.uses_regions and regions is None:
            regions = self.regions(pixels)
        found, start = clock(self.device) - start, clock(self.device)
        resized = resize_for_protocol(pixels, self.protocol.short_side, self.protocol.long_side)
        backbone = self._backbone()
        tensor = torch.from_numpy(resized).to(self.device).permute(2, 0, 1).float() / 255
        # On a CPU the image tower loses by bfloat16.
        gains = self.device.type != "cpu"
        with torch.no_grad(), autocast(self.device, self.dtype if gains else torch.float32):
            windows = encode_windows(
                backbone,
                normalise(tensor, backbone.mean, backbone.std)[None],
                window=self.protocol.window,
                stride=self.protocol.stride,
                batch=self.networks.batch,
                regions=self._window_regions(regions, resized) if backbone.regions else None,
                drop_remainder=self.protocol.drop_remainder,
            )
        return EncodedImage(
            image=pixels,
            windows=windows,
            seconds=clock(self.device) - start,
            regions=regions if self.config.uses_regions else None,
            regions_seconds=found,
        )

    def regions(self, image: np.ndarray) -> np.ndarray:
        """Regions (H, W) int32 of an RGB image (H, W, 3), see `models.regions`."""
        from .regions import find_regions

        return find_regions(self.networks, self.config, image, self.dtype)

    def _window_regions(self, regions: np.ndarray | None, resized: np.ndarray) -> Tensor:
        """Regions of the image on the resized one."""
        import torch

        from .regions import resize_regions

        assert regions is not None, "the settings use them"
        return resize_regions(torch.from_numpy(regions).to(self.device), resized.shape[:2])

    def dense(
        self,
        image: ImageSource | EncodedImage,
        vocabulary: Vocabulary,
        *,
        return_features: bool = False,
    ) -> DenseResult:
        """Dense class map with probabilities and timings; see `DenseResult`."""
        from .device import clock

        encoded = image if isinstance(image, EncodedImage) else self.encode(image)
        start = clock(self.device)
        self.encode_text(vocabulary.query_words)  # remembered: timed apart from the upsampling
        timings = encoded.timings | {"text": clock(self.device) - start}

        start = clock(self.device)
        scores = self.scores(encoded, vocabulary)
        features = self.features(encoded) if return_features else None
        timings["upsample"] = clock(self.device) - start
        return self.classify(scores, encoded, vocabulary, features=features, timings=timings)

    def scores(self, encoded: EncodedImage, vocabulary: Vocabulary) -> Tensor:
        """Scores (Q, h', w') of all words at the pixels of the resized image, before PAMR.

        Cosines; with upsampled "probabilities" those of the words.
        """
        text = self.encode_text(vocabulary.query_words)
        mixture = self.mixture()
        if len(mixture) == 1:
            return self._combine(encoded.windows, self._scorer(text))
        return mixed([(weight, part.scores(encoded, vocabulary)) for weight, part in mixture])

    def mixture(self: D) -> list[tuple[float, D]]:
        """The dense steps whose scores are mixed, with their weights: most often, one."""
        share = self.config.loftup_share
        assert share is not None, "it is resolved"
        if self.config.upsampler != "loftup" or share == 1:
            return [(1.0, self)]
        plain = self.with_config(upsampler="bilinear", loftup_share=1.0)
        return [(1 - share, plain), (share, self.with_config(loftup_share=1.0))]

    def features(self, encoded: EncodedImage) -> Tensor:
        """Features (D, H, W) float32 at the pixels of the image."""
        import torch
        from torch.nn import functional as F

        upsampler = self._upsampler()
        with torch.no_grad():
            features = self._combine(
                encoded.windows,
                lambda features, guide: upsampler.upsample(
                    features, self._guide(guide), (guide.shape[2], guide.shape[3])
                ),
            )
            return F.interpolate(features[None], encoded.size, mode="bilinear")[0]

    def classify(
        self,
        scores: Tensor,
        encoded: EncodedImage,
        vocabulary: Vocabulary,
        *,
        features: Tensor | None = None,
        timings: dict[str, float] | None = None,
    ) -> DenseResult:
        """From word scores, as `scores` gives them (or a mixture of such), to a dense class map.

        They must be of the kind that this step's `upsampled` makes.
        """
        import torch
        from torch.nn import functional as F

        from .device import clock
        from .pamr import pamr
        from .regions import correct_by_regions
        from .scoring import apply_area_threshold, class_probabilities_at, to_labels, vote_by_masks

        start, protocol = clock(self.device), self.protocol
        if self.config.use_pamr or protocol.pamr:
            image, scores = encoded.windows.image, scores[None]
            if protocol.pamr_original:
                image = F.interpolate(image, encoded.size, mode="bilinear")
                scores = F.interpolate(scores, encoded.size, mode="bilinear")
            scores = pamr(image, scores, PAMR_STEPS, PAMR_DILATIONS)[0]
        probs = class_probabilities_at(
            encoded.size,
            scores,
            vocabulary,
            None if self.config.upsampled == "probabilities" else protocol.logit_scale,
            merge_synonyms=protocol.merge_synonyms,
        )
        background = vocabulary.background_index
        if background is not None and protocol.area_thd:
            probs = apply_area_threshold(probs, protocol.area_thd, background)
        threshold = protocol.prob_thd if background is not None else 0.0
        labels = to_labels(probs, threshold, background)
        timings = dict(timings or {}) | {"classes": clock(self.device) - start}
        if self.config.use_sam:
            start, sam = clock(self.device), self.networks.sam(self.dtype)
            records = sam.automatic(encoded.image, self.networks.preset.sam.automatic)
            labels = vote_by_masks(labels, probs, [r["segmentation"] for r in records])
            timings["sam"] = clock(self.device) - start
        if self.config.map_correction:
            start = clock(self.device)
            assert encoded.regions is not None, "the image was encoded under the same settings"
            labels = torch.from_numpy(correct_by_regions(labels.cpu().numpy(), encoded.regions))
            timings["correction"] = clock(self.device) - start
        level = logging.INFO if self.verbose else logging.DEBUG
        logger.log(level, "dense map in %.2f s", sum(timings.values()))
        return DenseResult(
            labels=labels.cpu().numpy(),
            probs=probs.float().cpu().numpy(),
            features=features,
            timings=timings,
        )

    def _combine(self, windows: WindowFeatures, scorer: Scorer) -> Tensor:
        """What `scorer` says of all windows, at the pixels of the resized image."""
        from .windows import sliding_scores, whole_image_scores

        return (whole_image_scores if self.config.whole_image else sliding_scores)(windows, scorer)

    def _backbone(self) -> Backbone:
        return self.networks.backbone(self.config)

    def _upsampler(self) -> Upsampler:
        return self.networks.upsampler(self.config, self.dtype)

    def _guide(self, image: Tensor) -> Tensor:
        """What an upsampler sees of the normalised image: RGB, 0…1."""
        from .backbones.base import denormalise

        name = self.config.upsampler
        if isinstance(name, str) and UPSAMPLERS[name].scales_colours:
            return image
        backbone = self._backbone()
        return denormalise(image, backbone.mean, backbone.std)

    def _scorer(self, text: Tensor) -> Scorer:
        """How patch features become word scores at the guide's pixels."""
        import torch

        from .windows import cosine_scores

        upsampler: Any = self._upsampler()

        def scorer(features: Tensor, guide: Tensor) -> Tensor:
            size, guide = (guide.shape[2], guide.shape[3]), self._guide(guide)
            if self.config.upsampled == "features":
                return upsampler.upsample_scores(features, guide, text, size)
            values = cosine_scores(features, text)
            if self.config.upsampled == "probabilities":
                values = torch.softmax(self.protocol.logit_scale * values, dim=1)
            return upsampler.upsample_values(values, features, guide, size)

        return scorer


def mixed(parts: Sequence[tuple[float, Tensor]]) -> Tensor:
    """The weighted sum of scores; of one alone, these."""
    (weight, scores), *others = parts
    if not others:
        return scores
    total = scores * weight
    for weight, scores in others:
        total = total + scores * weight
    return total
