"""SCLIP: an image and class names in, a dense class map out, without training.

The dense step of the pipeline: sliding windows of CLIP features, cosines with the text vectors,
stitching, class probabilities. How patches become pixels is an upsampler's work, see
`models.upsamplers`; `LoftUpSCLIPSegmentor` adds LoftUp to them.

Shapes: Q query words, K classes, D joint width, h w patch grid, H W pixels of the image given.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .clip_dense import ATTENTIONS
from .device import (
    autocast,
    check_precision,
    clock,
    pick_device,
)
from .images import ImageSource, load_image
from .pamr import pamr
from .presets import DEFAULT_ANYUP, Preset, get_preset
from .protocols import Protocol, get_protocol
from .sam2_masks import Sam2Masks
from .scoring import (
    apply_area_threshold,
    class_probabilities_at,
    to_labels,
    vote_by_masks,
)
from .text import TextEncoder
from .upsamplers.base import Upsampler
from .upsamplers.registry import UPSAMPLERS, as_upsampler, check_upsampled
from .vocabulary import Vocabulary
from .weights import load_anyup, load_clip, load_sam2
from .windows import (
    Scorer,
    WindowFeatures,
    cosine_scores,
    encode_windows,
    resize_for_protocol,
    sliding_scores,
    whole_image_scores,
)

logger = logging.getLogger(__name__)

PAMR_STEPS, PAMR_DILATIONS = 10, (8, 16)  # SCLIP's and NACLIP's setting


@dataclass(frozen=True, kw_only=True)
class EncodedImage:
    """CLIP's view of one image, to be scored against any number of vocabularies."""

    image: np.ndarray  # (H, W, 3) uint8 RGB, as given
    windows: WindowFeatures
    seconds: float

    @property
    def size(self) -> tuple[int, int]:
        return self.image.shape[0], self.image.shape[1]


@dataclass(frozen=True, kw_only=True)
class DenseResult:
    """A dense class map."""

    labels: np.ndarray  # (H, W) int64, index into `Vocabulary.competitors`: the classes, those not
    # wanted, the background
    probs: np.ndarray  # (K, H, W) float32, of all of these
    features: Tensor | None  # (D, H, W) float32, at pixels
    timings: dict[str, float] = field(default_factory=dict)  # seconds per stage


class SCLIPSegmentor:
    """Dense class maps from words, by published SCLIP (scores upsampled bilinearly).

    Args:
        device: "cuda", "mps", "cpu"; None takes the best there is.
        preset: which trained models, see `models.presets`.
        attention: what CLIP's last block does, "csa", "vanilla" or "maskclip".
        protocol: name or object with windows, scale and thresholds; None takes the preset's.
        upsampler: "none" (every pixel takes what its patch has), "bilinear", "bicubic", "jbu",
            "guided", "anyup", or one's own, see `models.upsamplers`.
        upsampled: what is enlarged, the patches' "features", their "scores" for the words, or the
            words' "probabilities"; None takes what suits the upsampler.
        anyup_model: name, file or address of AnyUp's weights; None takes
            `models.presets.DEFAULT_ANYUP`.
        whole_image: stitch the windows' features first and upsample once.
        use_sam: SAM 2's automatic masks vote on the label map.
        use_pamr: refine the scores with PAMR even where the protocol does not ask for it.
        verbose: log what is loaded and how long each image took (level INFO).
        batch: windows encoded at once.
        precision: "float32", or "bfloat16" for the products of the networks (not AnyUp's, and on
            a CPU not CLIP's image tower), where the device is faster with it.

    Raises:
        ValueError: an unknown name, listing the valid ones.
        WeightsNotFoundError, WeightsError: see `models.weight_files`.
    """

    known = tuple(name for name in UPSAMPLERS if name != "loftup")  # names of upsamplers

    def __init__(
        self,
        device: str | torch.device | None = None,
        *,
        preset: str | Preset = "vit-b16",
        attention: str = "csa",
        protocol: str | Protocol | None = None,
        upsampler: str | Upsampler | Callable = "bilinear",
        upsampled: str | None = None,
        anyup_model: str | os.PathLike | None = None,
        whole_image: bool = False,
        use_sam: bool = False,
        use_pamr: bool = False,
        verbose: bool = True,
        batch: int = 8,
        precision: str = "float32",
    ) -> None:
        if attention not in ATTENTIONS:
            raise ValueError(f"unknown attention {attention!r}; valid: {', '.join(ATTENTIONS)}")
        if not isinstance(upsampler, str):
            upsampler = as_upsampler(upsampler)
        elif upsampler not in self.known:
            raise ValueError(f"unknown upsampler {upsampler!r}; valid: {', '.join(self.known)}")
        check_upsampled(upsampler, upsampled)
        self.device = pick_device(device)
        self.precision, self._dtype = precision, check_precision(precision, self.device)
        self.preset = get_preset(preset) if isinstance(preset, str) else preset
        protocol = protocol or self.preset.protocol
        self.protocol = get_protocol(protocol) if isinstance(protocol, str) else protocol
        self.attention, self.upsampler, self.upsampled = attention, upsampler, upsampled
        self.whole_image, self.use_sam, self.use_pamr = whole_image, use_sam, use_pamr
        self.verbose, self.batch = verbose, batch
        clip, tokenizer = load_clip(self.preset.clip)
        self.clip = clip.to(self.device)
        self.encode_text = TextEncoder(self.clip, tokenizer, dtype=self._dtype)
        if upsampler == "anyup":
            self.load_anyup(anyup_model)
        self._sam: Sam2Masks | None = None
        if use_sam:
            self._sam = Sam2Masks(load_sam2(self.preset.sam).to(self.device), dtype=self._dtype)
        self._log("CLIP %s on %s, %s attention", self.preset.name, self.device, attention)

    def load_anyup(self, name: str | os.PathLike | None = None) -> None:
        """Make upsampler "anyup" available; `name` as `anyup_model` at construction."""
        name = name or DEFAULT_ANYUP
        self.anyup = load_anyup(name).to(self.device)
        self._log("AnyUp %s", name)

    def _log(self, message: str, *values: object) -> None:
        logger.log(logging.INFO if self.verbose else logging.DEBUG, message, *values)

    def predict_dense(
        self,
        image: ImageSource | EncodedImage,
        class_names: Sequence[str],
        return_logits: bool = False,
        return_features: bool = False,
    ) -> np.ndarray | tuple[np.ndarray | Tensor, ...]:
        """The class of every pixel.

        Args:
            image: path, PIL image, (H, W, 3) uint8 RGB array, or an `EncodedImage`.
            class_names: K names; one may carry synonyms, "sofa,couch".
            return_logits: also give the logits.
            return_features: also give the features.

        Returns:
            `seg_map` (H, W) int64 with indices into `class_names`; then, as asked for, `logits`
            (K, H, W) float32 (log-probabilities: soft-max them over dim 0) and `features`
            (D, H, W) float32, upsampled. Alone, or a tuple in that order.
        """
        vocabulary = (
            class_names if isinstance(class_names, Vocabulary) else Vocabulary.parse(class_names)
        )
        dense = self.dense(image, vocabulary, return_features=return_features)
        seg_map = dense.labels
        if not (return_logits or return_features):
            return seg_map
        results: list[np.ndarray | Tensor] = [seg_map]
        if return_logits:
            results.append(torch.from_numpy(dense.probs).clamp_min(1e-30).log())
        if return_features:
            results.append(dense.features)
        return tuple(results)

    @torch.no_grad()
    def encode(self, image: ImageSource) -> EncodedImage:
        """Run CLIP's image side, the costly part that no word changes."""
        start = clock(self.device)
        pixels = load_image(image)
        resized = resize_for_protocol(pixels, self.protocol.short_side, self.protocol.long_side)
        visual = self.clip.visual
        mean, std = (
            torch.tensor(v, device=self.device).view(3, 1, 1)
            for v in (visual.image_mean, visual.image_std)
        )
        tensor = torch.from_numpy(resized).to(self.device).permute(2, 0, 1).float() / 255
        # On a CPU the image tower loses by bfloat16.
        gains = self.device.type != "cpu"
        with autocast(self.device, self._dtype if gains else torch.float32):
            windows = encode_windows(
                self.clip,
                ((tensor - mean) / std)[None],
                window=self.protocol.window,
                stride=self.protocol.stride,
                attention=self.attention,
                batch=self.batch,
            )
        return EncodedImage(image=pixels, windows=windows, seconds=clock(self.device) - start)

    @torch.no_grad()
    def dense(
        self,
        image: ImageSource | EncodedImage,
        vocabulary: Vocabulary,
        *,
        return_features: bool = False,
    ) -> DenseResult:
        """Dense class map with probabilities and timings; see `DenseResult`."""
        encoded = image if isinstance(image, EncodedImage) else self.encode(image)
        start = clock(self.device)
        self.encode_text(vocabulary.query_words)  # remembered: timed apart from the upsampling
        timings = {"clip": encoded.seconds, "text": clock(self.device) - start}

        start = clock(self.device)
        scores = self.scores(encoded, vocabulary)
        features = None
        if return_features:
            features = self._combine(encoded.windows, self._features)
            features = F.interpolate(features[None], encoded.size, mode="bilinear")[0]
        timings["upsample"] = clock(self.device) - start
        return self.classify(scores, encoded, vocabulary, features=features, timings=timings)

    @torch.no_grad()
    def scores(self, encoded: EncodedImage, vocabulary: Vocabulary) -> Tensor:
        """Scores (Q, h', w') of all words at the pixels of the resized image, before PAMR.

        Cosines; with upsampled "probabilities" those of the words.
        """
        return self._combine(
            encoded.windows, self._scorer(self.encode_text(vocabulary.query_words))
        )

    @torch.no_grad()
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

        They must be of the kind that this segmentor's `upsampled` makes.
        """
        start = clock(self.device)
        if self.use_pamr or self.protocol.pamr:
            scores = pamr(encoded.windows.image, scores[None], PAMR_STEPS, PAMR_DILATIONS)[0]
        probs = class_probabilities_at(
            encoded.size,
            scores,
            vocabulary,
            None if self._chosen()[1] == "probabilities" else self.protocol.logit_scale,
            merge_synonyms=self.protocol.merge_synonyms,
        )
        background = vocabulary.background_index
        if background is not None and self.protocol.area_thd:
            probs = apply_area_threshold(probs, self.protocol.area_thd, background)
        threshold = self.protocol.prob_thd if background is not None else 0.0
        labels = to_labels(probs, threshold, background)
        timings = dict(timings or {}) | {"classes": clock(self.device) - start}
        if self._sam is not None:
            start = clock(self.device)
            records = self._sam.automatic(encoded.image, self.preset.sam.automatic)
            labels = vote_by_masks(labels, probs, [r["segmentation"] for r in records])
            timings["sam"] = clock(self.device) - start
        self._log("dense map in %.2f s", sum(timings.values()))
        return DenseResult(
            labels=labels.cpu().numpy(),
            probs=probs.float().cpu().numpy(),
            features=features,
            timings=timings,
        )

    def _combine(self, windows: WindowFeatures, scorer: Scorer) -> Tensor:
        """What `scorer` says of all windows, at the pixels of the resized image."""
        return (whole_image_scores if self.whole_image else sliding_scores)(windows, scorer)

    def _chosen(self) -> tuple[Upsampler, str]:
        """The upsampler, and what it is to enlarge.

        Raises:
            ValueError: it cannot enlarge that.
        """
        check_upsampled(self.upsampler, self.upsampled)
        upsampler = self.upsampler
        if isinstance(upsampler, str):
            upsampler = self._built_in(upsampler)
        return upsampler, self.upsampled or upsampler.upsampled

    def _built_in(self, name: str) -> Upsampler:
        return UPSAMPLERS[name].build(getattr(self, name, None), "restored", self._dtype)

    def _guide(self, image: Tensor) -> Tensor:
        """What an upsampler sees of the normalised image: RGB, 0…1."""
        visual = self.clip.visual
        mean, std = (
            torch.tensor(v, device=image.device).view(3, 1, 1)
            for v in (visual.image_mean, visual.image_std)
        )
        return image * std + mean

    def _scorer(self, text: Tensor) -> Scorer:
        """How patch features become word scores at the guide's pixels."""
        upsampler, upsampled = self._chosen()

        def scorer(features: Tensor, guide: Tensor) -> Tensor:
            size, guide = tuple(guide.shape[2:]), self._guide(guide)
            if upsampled == "features":
                return upsampler.upsample_scores(features, guide, text, size)
            values = cosine_scores(features, text)
            if upsampled == "probabilities":
                values = torch.softmax(self.protocol.logit_scale * values, dim=1)
            return upsampler.upsample_values(values, features, guide, size)

        return scorer

    def _features(self, features: Tensor, guide: Tensor) -> Tensor:
        """Patch features at the guide's pixels."""
        upsampler, _ = self._chosen()
        return upsampler.upsample(features, self._guide(guide), tuple(guide.shape[2:]))
