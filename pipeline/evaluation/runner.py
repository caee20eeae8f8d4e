"""Runs the arms of a benchmark on images; what arms have in common is computed once.

Label maps are in the data set's coding: 0 background, i + 1 class i.
Shapes: H×W pixels of the original image.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from models.dense import DENSE_FIELDS, Dense, DenseConfig, DenseResult, EncodedImage, mixed
from models.device import clock
from models.networks import Networks
from models.protocols import Protocol
from models.sam2_masks import Sam2Masks

from ..config import PipelineConfig
from ..datasets.base import GroundTruth
from ..files.label_png import label_dtype
from ..record import made_with
from ..segmenter import Segmenter
from .arms import Arm
from .oracles import masks_by_truth, masks_from_true_points


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What one arm says about one image.

    Attributes:
        labels: (H, W) uint8 or uint16 in the data set's coding, 0 background.
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
        dense: the dense step that arms change; one's own, if its subclass does it another way.
        protocol: words, windows and thresholds, with `class_names` among the data set's.
        labels: the data set's names of its labels, background first.
        ignore: the label of its ground truth that is not scored.
        config: of the final masks; the dense settings are those of `dense`.
        sam: SAM 2 with an image of its own; None shares the networks'.
    """

    def __init__(
        self,
        dense: Dense,
        protocol: Protocol,
        labels: Sequence[str],
        *,
        ignore: int = 255,
        config: PipelineConfig | None = None,
        sam: Sam2Masks | None = None,
    ) -> None:
        self.dense = dense.with_config(protocol=protocol)
        own = {name: getattr(self.dense.config, name) for name in DENSE_FIELDS}
        self.config = dataclasses.replace(config or PipelineConfig(), **own)
        self.words, self.ignore, self.own_sam = protocol.vocabulary(), ignore, sam
        # Result label (0 nothing named, i + 1 class i) → the data set's label.
        own_labels = [0, *(list(labels).index(name) for name in protocol.class_names)]
        self.label_of = np.array(own_labels, label_dtype(len(labels) - 1))

    @property
    def networks(self) -> Networks:
        return self.dense.networks

    def dense_of(self, arm: Arm) -> Dense:
        """The dense step with the arm's settings."""
        return self.dense.with_config(**arm.dense_changes) if arm.dense_changes else self.dense

    def segmenter_of(self, arm: Arm) -> Segmenter:
        """The whole pipeline with the arm's settings."""
        config = self.config.changed(**arm.changes)
        return Segmenter(self.networks, config, sam=self.own_sam, dense=self.dense)

    def load(self, arms: Sequence[Arm]) -> None:
        """Load all networks that the arms need, and no others."""
        for arm in arms:
            if arm.oracle:
                self.networks.network("sam2")
            else:
                self.networks.load(self.dense_of(arm).config, sam=arm.final)

    def record(self, arm: Arm) -> dict[str, Any]:
        """What decides the arm's predictions, see `pipeline.record`."""
        if arm.oracle:
            networks = self.networks
            record: dict[str, Any] = {
                "preset": networks.preset.name,
                "weights": {"sam2": networks.fingerprint("sam2")},
                "protocol": dataclasses.asdict(self.dense.protocol),
                "oracle": arm.oracle,
            }
            if arm.oracle == "oracle-masks":
                record |= dataclasses.asdict(networks.preset.sam.automatic)
            return record
        used = self.segmenter_of(arm).config if arm.final else self.dense_of(arm).config
        record = made_with(self.networks, used, final=arm.final)
        if type(self.dense) is not Dense:
            record["segmentor"] = type(self.dense).__name__
        return record

    def run(
        self, image: np.ndarray, arms: Sequence[Arm], truth: GroundTruth | None = None
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
                yield arm, Prediction(labels=self.label_of[labels], seconds=dense.timings)

    def _final(self, arm: Arm, state: _Image, dense: DenseResult) -> Prediction:
        found = self.segmenter_of(arm).masks(state.encoded(self.dense_of(arm)), dense, self.words)
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
            labels=self.label_of[labels],
            seconds=state.shared_sam_image(found.timings),
            prompts=found.settings["prompts"],
            masks=masks,
        )

    def _oracle(self, arm: Arm, state: _Image, truth: GroundTruth) -> Prediction:
        if self.words.background_index is None:  # background is not scored: it has no say
            labels = np.where(truth.labels == 0, truth.labels.dtype.type(self.ignore), truth.labels)
            truth = dataclasses.replace(truth, labels=labels)
        device, sam = self.networks.device, self.own_sam or self.networks.sam(self.dense.dtype)
        start = clock(device)
        sam.set_image(state.image)
        seconds = state.shared_sam_image({"sam_image": clock(device) - start})
        start = clock(device)
        if arm.oracle == "oracle-masks":
            settings = self.networks.preset.sam.automatic
            labels, masks = (
                masks_by_truth(sam, state.image, truth.labels, settings, self.ignore),
                [],
            )
        else:
            labels, masks = masks_from_true_points(sam, truth, self.config, self.ignore)
        seconds["masks"] = clock(device) - start
        prompts = len(masks) if arm.oracle == "oracle-points" else None
        return Prediction(labels=labels, seconds=seconds, prompts=prompts, masks=masks)


class _Image:
    """What the arms share of one image."""

    def __init__(self, runner: ArmRunner, image: np.ndarray) -> None:
        self.runner, self.image = runner, image
        self._encoded: dict[object, EncodedImage] = {}
        self._found_regions: dict[object, tuple[np.ndarray, float]] = {}
        self._scores: dict[DenseConfig, tuple[Tensor, float]] = {}
        self._dense: dict[DenseConfig, DenseResult] = {}
        self._sam_seconds: float | None = None

    def encoded(self, dense: Dense) -> EncodedImage:
        """CLIP's features, once per way of encoding."""
        key = dense.config.encoding
        if key not in self._encoded:
            encoded = dense.encode(self.image, regions=self._regions(dense)[0])
            # One array for all: SAM 2 knows an image that it has set by identity.
            self._encoded[key] = dataclasses.replace(encoded, image=self.image)
        regions, seconds = self._regions(dense)
        return dataclasses.replace(self._encoded[key], regions=regions, regions_seconds=seconds)

    def _regions(self, dense: Dense) -> tuple[np.ndarray | None, float]:
        """Regions and the seconds they take, once per way to them; None where they aren't used."""
        key = dense.config.region_finding
        if key and key not in self._found_regions:
            start = clock(dense.device)
            regions = dense.regions(self.image)
            self._found_regions[key] = regions, clock(dense.device) - start
        return self._found_regions.get(key, (None, 0.0))

    def dense(self, arm: Arm) -> DenseResult:
        """The dense map, once per way to it."""
        dense = self.runner.dense_of(arm)
        if dense.config not in self._dense:
            encoded, words = self.encoded(dense), self.runner.words
            if not arm.dense_changes:  # as it was given, and it may do it all its own way
                self._dense[dense.config] = dense.dense(encoded, words)
            else:
                self._dense[dense.config] = self._shared(dense, encoded)
        return self._dense[dense.config]

    def _shared(self, dense: Dense, encoded: EncodedImage) -> DenseResult:
        """The dense map, made of scores that other arms share."""
        words, device = self.runner.words, dense.device
        start = clock(device)
        dense.encode_text(words.query_words)
        timings = encoded.timings | {"text": clock(device) - start}
        parts = [(weight, *self._word_scores(part, encoded)) for weight, part in dense.mixture()]
        timings["upsample"] = sum(seconds for _, _, seconds in parts)
        scores = mixed([(weight, scores) for weight, scores, _ in parts])
        return dense.classify(scores, encoded, words, timings=timings)

    def _word_scores(self, dense: Dense, encoded: EncodedImage) -> tuple[Tensor, float]:
        """Word scores and the seconds they take."""
        key = dataclasses.replace(dense.config, use_pamr=False, use_sam=False, map_correction=False)
        if key not in self._scores:
            start = clock(dense.device)
            scores = dense.scores(encoded, self.runner.words)
            self._scores[key] = scores, clock(dense.device) - start
        return self._scores[key]

    def shared_sam_image(self, timings: dict[str, float]) -> dict[str, float]:
        """Timings in which SAM 2's encoding costs what it cost the first time."""
        if "sam_image" not in timings:
            return timings
        if self._sam_seconds is None:
            self._sam_seconds = timings["sam_image"]
        return timings | {"sam_image": self._sam_seconds}
