"""An image and words in, named masks out: the steps of the method, one after the other.

    segmenter = Segmenter.from_preset("tiny", use_loftup=True)
    result = segmenter.segment("street.jpg", ["person", "car", "tree"])

Shapes: K classes, M masks, H×W pixels of the original image.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from models.dense import Dense, DenseResult, EncodedImage
from models.device import clock
from models.images import ImageSource
from models.networks import Networks
from models.presets import Preset
from models.sam2_masks import Sam2Masks
from models.upsamplers.base import Upsampler
from models.upsamplers.registry import upsampler_choice
from models.vocabulary import Entries, Vocabulary

from .config import DENSE_FIELDS, PipelineConfig
from .files.label_png import label_dtype
from .found import what_is_missing
from .limits import limits_of
from .masks import merge_overlapping, resolve_label_map
from .prompts import Prompt, extract_prompt_points_from_upsampled
from .record import environment, made_with
from .result import Segmentation
from .sam2_prompting import masks_from_prompts


class Segmenter:
    """Networks and a configuration; `segment` any number of images.

    Args:
        networks: of a preset; what the configuration needs is loaded here.
        config: settings; what is None is settled by the preset.
        sam: SAM 2 with an image of its own; None shares the networks'.
        dense: a dense step of one's own instead of `models.dense.Dense`.

    Attributes:
        config: no setting is None.
        dense: the dense step under these settings.

    Raises:
        ValueError, WeightsNotFoundError, WeightsError: see `Networks.load`.
    """

    def __init__(
        self,
        networks: Networks,
        config: PipelineConfig | None = None,
        *,
        sam: Sam2Masks | None = None,
        dense: Dense | None = None,
    ) -> None:
        self.networks = networks
        self.config = (config or PipelineConfig()).resolved(networks.preset)
        networks.load(self.config, sam=sam is None)
        if dense is None:
            self.dense = Dense(networks, self.config)
        else:
            self.dense = dense.with_config(**{f: getattr(self.config, f) for f in DENSE_FIELDS})
        self._own_sam = sam

    @classmethod
    def from_preset(
        cls,
        name: str | Preset = "vit-b16",
        *,
        use_loftup: bool | None = None,
        upsampler: str | Upsampler | Callable | None = None,
        device: str | None = None,
        config: PipelineConfig | None = None,
        loftup: str | os.PathLike | None = None,
        anyup: str | os.PathLike | None = None,
        weights: Mapping[str, str | os.PathLike | None] | None = None,
        model_cfg: str | None = None,
        checkpoint: str | os.PathLike | None = None,
    ) -> Segmenter:
        """Load the models of a preset.

        Args:
            name: one of `models.presets.PRESETS`, or a preset of one's own.
            use_loftup: short for upsampler "loftup", or "bilinear".
            upsampler: overrides the configuration's; one's own, too, see `models.upsamplers`.
            device: cuda, mps or cpu; None takes the best there is.
            config: settings; None takes the defaults.
            loftup: LoftUp's name or checkpoint file instead of the preset's.
            anyup, checkpoint: SAM 2's configuration and weights instead of the preset's.

        Raises:
            ValueError: an unknown name, listing the valid ones.
            WeightsNotFoundError, WeightsError: see `models.weight_files`.
        """
        config = config or PipelineConfig()
        chosen = upsampler_choice(upsampler, use_loftup, "")
        networks = Networks(
            name,
            device,
            weights={"loftup": loftup, "anyup": anyup} | dict(weights or {}),
            model_cfg=model_cfg,
            checkpoint=checkpoint,
        )
        changes = {"upsampler": chosen} if chosen not in ("", config.upsampler) else {}
        return cls(networks, config.changed(**changes))

    def with_config(self, *, sam: Sam2Masks | None = None, **changes: Any) -> Segmenter:
        """The same networks under other settings, fields of `PipelineConfig`.

        Args:
            sam: SAM 2 with an image of its own; None keeps this segmenter's.
            changes: of the settings; another upsampler upsamples what suits it.

        Raises:
            ValueError: a setting there is not, or a value it does not have.
        """
        config = self.config.changed(**changes)
        return type(self)(self.networks, config, sam=sam or self._own_sam, dense=self.dense)

    @property
    def sam(self) -> Sam2Masks:
        return self._own_sam or self.networks.sam(self.dense.dtype)

    def vocabulary(
        self,
        words: Entries | Vocabulary,
        background: Sequence[str] | None = None,
        not_words: Entries = (),
        thresholds: Mapping[str, float] | None = None,
    ) -> Vocabulary:
        """What the user typed, with the protocol's background words unless others are given.

        Raises:
            ValueError, FileNotFoundError: see `Vocabulary.parse`; or more is given to a
                `Vocabulary`, which has it all (a background unless it is None).
        """
        own = words.background if isinstance(words, Vocabulary) else None
        if isinstance(words, Vocabulary) and (
            not_words or thresholds or (background is not None and own is not None)
        ):
            raise ValueError(
                "a Vocabulary brings its own background, not_words and thresholds: give them to "
                "Vocabulary.parse"
            )
        if background is None:
            background = self.dense.protocol.background
        if isinstance(words, Vocabulary):
            return words if own is not None else words.with_background(background)
        return Vocabulary.parse(words, background, not_words=not_words, thresholds=thresholds)

    def segment(
        self,
        image: ImageSource | EncodedImage,
        vocabulary: Entries | Vocabulary,
        *,
        background: Sequence[str] | None = None,
        not_words: Entries = (),
        thresholds: Mapping[str, float] | None = None,
        image_path: str | None = None,
        keep_probs: bool = False,
        **changes: Any,
    ) -> Segmentation:
        """Find everything the words name.

        Args:
            image: path, PIL image, (H, W, 3) uint8 RGB array, or what `dense.encode` gave.
            vocabulary: class names; one may carry synonyms, "sofa,couch" or {"sofa": ["couch"]};
                "@file" reads a list.
            background: words for everything else; None takes the protocol's, () none. A
                `Vocabulary` brings its own unless that is None, and its own of the next two.
            not_words: what is not wanted, written like the vocabulary. It competes like a class,
                with masks of its own, and is then left out of the result.
            thresholds: class name → its least confidence instead of the configuration's.
            image_path: for the result, where `image` is not a path itself.
            keep_probs: the result has `probs`, for instance for heat maps.
            changes: any setting of the configuration for this call alone.

        Raises:
            ValueError, FileNotFoundError: an image, a vocabulary or a setting that cannot be used.
        """
        segmenter = self.with_config(**changes) if changes else self
        words = segmenter.vocabulary(vocabulary, background, not_words, thresholds)
        dense = segmenter.dense
        encoded = image if isinstance(image, EncodedImage) else dense.encode(image)
        if isinstance(image, str | os.PathLike):
            image_path = str(image)
        return segmenter.masks(
            encoded,
            dense.dense(encoded, words),
            words,
            image_path=image_path,
            keep_probs=keep_probs,
        )

    def masks(
        self,
        encoded: EncodedImage,
        dense: DenseResult,
        words: Vocabulary,
        *,
        image_path: str | None = None,
        keep_probs: bool = False,
    ) -> Segmentation:
        """The second half of `segment`: from a dense map to masks."""
        timings = dict(dense.timings)
        with self._timed(timings, "prompts"):
            prompts = self.prompts(dense, words)
        if prompts:
            with self._timed(timings, "sam_image"):
                self.sam.set_image(encoded.image)
        with self._timed(timings, "masks"):
            found = list(masks_from_prompts(self.sam, prompts, encoded.size, self.config))
            label_map, groups = self._merged(found, dense, words, encoded.size)
            arrays = _arrays(found, groups, encoded.size)
        place = environment(self.networks)
        versions = place.pop("versions")
        settings = self.made_with(words) | place | {"prompts": len(prompts)}
        if limits := limits_of(self.networks.preset, encoded.image):
            settings["limits"] = limits
        if missing := set(range(len(words))) - set(arrays["class_ids"].tolist()):
            vectors = self.dense.encode_text(words.query_words)
            settings |= what_is_missing(sorted(missing), dense.probs, words, vectors)
        return Segmentation(
            label_map=label_map,
            dense_map=_dense_map(dense, words),
            class_names=words.class_names,
            probs=_probs(dense, words) if keep_probs else None,
            image=encoded.image,
            image_path=image_path,
            timings=timings,
            versions=versions,
            settings=settings,
            **arrays,
        )

    def made_with(self, words: Vocabulary) -> dict[str, Any]:
        """What decides results of these words, see `pipeline.record`."""
        return made_with(self.networks, self.config, words, final=True)

    def prompts(self, dense: DenseResult, words: Vocabulary) -> list[Prompt]:
        """Where to click, from a dense map."""
        return extract_prompt_points_from_upsampled(
            dense.labels,
            dense.probs.transpose(1, 2, 0),
            words.competitors,
            words.confidences(self.config.min_confidence),
            self.config.min_region_size,
            strategy=self.config.strategy,
            points_per_region=self.config.points_per_region,
            negative_points=self.config.negative_points,
            background_idx=words.background_index,
        )

    def _merged(
        self,
        found: list[dict[str, Any]],
        dense: DenseResult,
        words: Vocabulary,
        size: tuple[int, int],
    ) -> tuple[np.ndarray, list[list[int]]]:
        """The label map, and which masks are one thing each, without what is not wanted."""
        groups = merge_overlapping(
            [f["mask_region"] for f in found],
            [f["class_idx"] for f in found],
            [f["score"] for f in found],
            self.config.iou_threshold,
        )
        kept = [found[group[0]] for group in groups]
        label_map = resolve_label_map(
            [f["mask_region"] for f in kept],
            [f["class_idx"] for f in kept],
            [f["score"] for f in kept],
            dense.probs,
            size,
        )
        # What is not wanted has won its pixels; here it goes.
        label_map[label_map > len(words)] = 0
        wanted = [group for group in groups if found[group[0]]["class_idx"] < len(words)]
        return label_map.astype(label_dtype(len(words))), wanted

    @contextmanager
    def _timed(self, timings: dict[str, float], stage: str) -> Iterator[None]:
        start = clock(self.networks.device)
        yield
        timings[stage] = clock(self.networks.device) - start


def _arrays(
    found: list[dict[str, Any]], groups: list[list[int]], size: tuple[int, int]
) -> dict[str, Any]:
    """Arrays of the result, of the best mask of each group; its clicks are all of the group's."""
    kept = [found[group[0]] for group in groups]
    points = [[p for i in group for p in found[i]["points"]] for group in groups]
    regions = [f["mask_region"] for f in kept]
    masks = np.zeros((len(kept), *size), bool)
    for mask, region in zip(masks, regions, strict=True):
        mask[region.window] = region.mask
    return {
        "masks": masks,
        "class_ids": np.array([f["class_idx"] for f in kept], np.int64),
        "scores": np.array([f["score"] for f in kept], np.float32),
        "confidences": np.array([f["confidence"] for f in kept], np.float32),
        "agreement": np.array([f["agreement"] for f in kept], np.float32),
        "boxes": np.array([r.box for r in regions], np.float32).reshape(-1, 4),
        "points": tuple(np.array(p, np.float32) for p in points),
        "sources": tuple(f["source"] for f in kept),
    }


def _dense_map(dense: DenseResult, words: Vocabulary) -> np.ndarray:
    """Labels in the result's coding: 0 not wanted or background, i + 1 class i."""
    labels = dense.labels + 1
    labels[labels > len(words)] = 0
    return labels.astype(label_dtype(len(words)))


def _probs(dense: DenseResult, words: Vocabulary) -> np.ndarray:
    """Probabilities of the classes and the background, without what is not wanted."""
    if not words.not_words:
        return dense.probs
    count = len(words)
    return np.delete(dense.probs, np.s_[count : count + len(words.not_words)], axis=0)
