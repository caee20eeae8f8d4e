"""Runs the arms of a benchmark on images; what arms have in common is computed once.

Label maps are in VOC's coding: 0 background, i + 1 class i, 255 ignored.
Shapes: H×W pixels of the original image.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from models.device import clock
from models.protocols import Protocol
from models.sam2_masks import Sam2Masks
from models.sclip_segmentor import DenseResult, EncodedImage, SCLIPSegmentor
from models.upsamplers.base import upsampler_name

from ..config import PipelineConfig
from ..datasets.voc import CLASSES, IGNORE, Truth
from ..segmenter import Segmenter
from .arms import (
    DENSE_ATTRIBUTES,
    FINAL_FIELDS,
    UPSAMPLERS,
    Arm,
)
from .oracles import masks_by_truth, masks_from_true_points


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What one arm says about one image.

    Attributes:
        labels: (H, W) uint8 in VOC's coding, 0 background.
        seconds: per stage, as if the arm had run alone.
        prompts: number of prompts; None for arms without.
        masks: per mask `label`, `score`, `source`, `points` [(x, y), …] and `mask` (H, W) bool.
    """

    labels: np.ndarray
    seconds: dict[str, float]
    prompts: int | None = None
    masks: list[dict[str, Any]] = field(default_factory=list)


class ArmRunner:
    """Runs arms on images; CLIP's features, text vectors and SAM 2's embedding are shared.

    Args:
        segmentor: with LoftUp and AnyUp, if an arm needs them.
        sam: None if no arm needs it.
        protocol: words, windows and thresholds, with `class_names` among VOC's.
        config: of the final masks.
    """

    def __init__(
        self,
        segmentor: SCLIPSegmentor,
        sam: Sam2Masks | None,
        protocol: Protocol,
        config: PipelineConfig | None = None,
    ) -> None:
        self.sam, self.config = sam, config or PipelineConfig()
        self.segmentor = copy.copy(segmentor)
        self.segmentor.protocol = protocol
        self.words = protocol.vocabulary()
        # Result label (0 nothing named, i + 1 class i) → VOC label.
        self.label_of = np.array([0, *(CLASSES.index(n) + 1 for n in protocol.class_names)])

    def segmentor_of(self, arm: Arm) -> SCLIPSegmentor:
        """The segmentor with the arm's attributes."""
        segmentor = copy.copy(self.segmentor)
        vars(segmentor).update(arm.dense)
        for name, network in (("LoftUp", "loftup"), ("AnyUp", "anyup")):
            if arm.dense.get("upsampler") == network:
                assert hasattr(segmentor, network), f"{name} is loaded for arms that need it"
        return segmentor

    def upsampler(self, arm: Arm) -> str | None:
        """Name of the arm's upsampler; None for oracles."""
        return None if arm.oracle else upsampler_name(self.segmentor_of(arm).upsampler)

    def settings(self, arm: Arm) -> dict[str, Any]:
        """What decides the arm's predictions, models and protocol apart."""
        if arm.oracle:
            automatic = dataclasses.asdict(self.segmentor.preset.sam.automatic)
            return {"oracle": arm.oracle} | (automatic if arm.oracle == "oracle-masks" else {})
        segmentor = self.segmentor_of(arm)
        dense = {name: getattr(segmentor, name, None) for name in DENSE_ATTRIBUTES}
        dense["upsampler"] = self.upsampler(arm)
        if dense["upsampler"] != "loftup":
            dense["loftup_share"] = dense["text_space"] = None
        config = dataclasses.replace(self.config, **arm.config) if arm.final else None
        return {
            "dense": dense | {"segmentor": type(segmentor).__name__},
            "final": config and {name: getattr(config, name) for name in FINAL_FIELDS},
        }

    def run(
        self, image: np.ndarray, arms: Sequence[Arm], truth: Truth | None = None
    ) -> Iterator[tuple[Arm, Prediction]]:
        """Predictions of all arms for one image, as they are made.

        Args:
            image: (H, W, 3) uint8 RGB.
            arms: which.
            truth: for the oracles.
        """
        state = _Image(self, image)
        for arm in arms:
            if arm.oracle:
                assert truth is not None, "an oracle is told the truth"
                yield arm, self._oracle(arm, state, truth)
                continue
            dense = state.dense(arm)
            if arm.final:
                yield arm, self._final(arm, state, dense)
            else:
                labels = dense.labels + 1
                labels[labels > len(self.words)] = 0
                labels = self.label_of[labels].astype(np.uint8)
                yield arm, Prediction(labels=labels, seconds=dense.timings)

    def _final(self, arm: Arm, state: _Image, dense: DenseResult) -> Prediction:
        config = dataclasses.replace(self.config, **arm.config)
        segmenter = Segmenter(self.segmentor_of(arm), self.sam, config)
        found = segmenter.masks(state.encoded(arm), dense, self.words)
        labels = found.label_map
        if self.words.background_index is None:  # every pixel is a class: the map fills the gaps
            labels = np.where(labels == 0, found.dense_map, labels)
        masks = [
            {
                "label": int(self.label_of[found.class_ids[i] + 1]),
                "score": float(found.scores[i]),
                "source": found.sources[i],
                "points": found.points[i].astype(int).tolist(),
                "mask": found.masks[i],
            }
            for i in range(len(found))
        ]
        return Prediction(
            labels=self.label_of[labels].astype(np.uint8),
            seconds=state.shared_sam_image(found.timings),
            prompts=found.settings["prompts"],
            masks=masks,
        )

    def _oracle(self, arm: Arm, state: _Image, truth: Truth) -> Prediction:
        if self.words.background_index is None:  # background is not scored: it has no say
            labels = np.where(truth.labels == 0, np.uint8(IGNORE), truth.labels)
            truth = dataclasses.replace(truth, labels=labels)
        start = clock(self.segmentor.device)
        self.sam.set_image(state.image)
        seconds = state.shared_sam_image({"sam_image": clock(self.segmentor.device) - start})
        start = clock(self.segmentor.device)
        if arm.oracle == "oracle-masks":
            settings = self.segmentor.preset.sam.automatic
            labels, masks = masks_by_truth(self.sam, state.image, truth.labels, settings), []
        else:
            labels, masks = masks_from_true_points(self.sam, truth, self.config)
        seconds["masks"] = clock(self.segmentor.device) - start
        prompts = len(masks) if arm.oracle == "oracle-points" else None
        return Prediction(labels=labels, seconds=seconds, prompts=prompts, masks=masks)


class _Image:
    """What the arms share of one image."""

    def __init__(self, runner: ArmRunner, image: np.ndarray) -> None:
        self.runner, self.image = runner, image
        self._encoded: dict[str, EncodedImage] = {}
        self._scores: dict[str, tuple[Tensor, float]] = {}
        self._dense: dict[str, DenseResult] = {}
        self._sam_seconds: float | None = None

    def encoded(self, arm: Arm) -> EncodedImage:
        """CLIP's features, once per attention."""
        segmentor = self.runner.segmentor_of(arm)
        if segmentor.attention not in self._encoded:
            encoded = segmentor.encode(self.image)
            # One array for all: SAM 2 knows an image that it has set by identity.
            self._encoded[segmentor.attention] = dataclasses.replace(encoded, image=self.image)
        return self._encoded[segmentor.attention]

    def dense(self, arm: Arm) -> DenseResult:
        """The dense map, once per way to it."""
        key = str(sorted(arm.dense.items()))
        if key not in self._dense:
            segmentor, encoded = self.runner.segmentor_of(arm), self.encoded(arm)
            if not arm.dense:  # somebody's own segmentor, which may do it all its own way
                self._dense[key] = segmentor.dense(encoded, self.runner.words)
                return self._dense[key]
            start = clock(self.runner.segmentor.device)
            segmentor.encode_text(self.runner.words.query_words)
            timings = {"clip": encoded.seconds, "text": clock(self.runner.segmentor.device) - start}
            scores, timings["upsample"] = self._word_scores(dict(arm.dense), encoded)
            self._dense[key] = segmentor.classify(
                scores, encoded, self.runner.words, timings=timings
            )
        return self._dense[key]

    def _word_scores(
        self, attributes: dict[str, Any], encoded: EncodedImage
    ) -> tuple[Tensor, float]:
        """Word scores and the seconds they take; a mean is made of its two parts' scores."""
        attributes = {k: v for k, v in attributes.items() if k != "use_pamr"}
        key = str(sorted(attributes.items()))
        if key in self._scores:
            return self._scores[key]
        share = attributes.get("loftup_share", 1.0)
        if attributes.get("upsampler") == "loftup" and share != 1.0:
            plain, first = self._word_scores(attributes | UPSAMPLERS["bilinear"], encoded)
            loftup, second = self._word_scores(attributes | UPSAMPLERS["loftup"], encoded)
            self._scores[key] = (plain * (1 - share) + loftup * share, first + second)
            return self._scores[key]
        segmentor = self.runner.segmentor_of(Arm(name="", dense=attributes))
        start = clock(self.runner.segmentor.device)
        scores = segmentor.scores(encoded, self.runner.words)
        self._scores[key] = (scores, clock(self.runner.segmentor.device) - start)
        return self._scores[key]

    def shared_sam_image(self, timings: dict[str, float]) -> dict[str, float]:
        """Timings in which SAM 2's encoding costs what it cost the first time."""
        if "sam_image" not in timings:
            return timings
        if self._sam_seconds is None:
            self._sam_seconds = timings["sam_image"]
        return timings | {"sam_image": self._sam_seconds}
