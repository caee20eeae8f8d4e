"""An image and words in, named masks out: the steps of the method, one after the other.

    segmenter = Segmenter.from_preset("tiny", use_loftup=True)
    result = segmenter.segment("street.jpg", ["person", "car", "tree"])

Shapes: K classes, M masks, H×W pixels of the original image.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from models.device import check_precision, clock
from models.images import ImageSource
from models.loftup_sclip_segmentor import LoftUpSCLIPSegmentor
from models.presets import DEFAULT_ANYUP, Preset, get_preset
from models.sam2_masks import Sam2Masks
from models.sclip_segmentor import DenseResult, EncodedImage, SCLIPSegmentor
from models.upsamplers.base import Upsampler, upsampler_name
from models.vocabulary import Vocabulary
from models.weights import load_sam2

from .config import PipelineConfig
from .masks import merge_overlapping, resolve_label_map
from .prompts import Prompt, extract_prompt_points_from_upsampled
from .result import Segmentation
from .sam2_prompting import masks_from_prompts

_PACKAGES = ("torch", "open_clip_torch", "sam2", "numpy")


class Segmenter:
    """Owns the models; `segment` any number of images.

    Args:
        segmentor: makes the dense map.
        sam: makes the masks.
        config: how.
        names: what the models are, for the result's settings.
    """

    def __init__(
        self,
        segmentor: SCLIPSegmentor,
        sam: Sam2Masks,
        config: PipelineConfig | None = None,
        names: dict[str, str] | None = None,
    ) -> None:
        self.segmentor, self.sam = segmentor, sam
        self.config = config or PipelineConfig()
        self.names = names or {}

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
            anyup: AnyUp's name, checkpoint file or address instead of the default.
            model_cfg, checkpoint: SAM 2's configuration and weights instead of the preset's.

        Raises:
            ValueError: an unknown name, listing the valid ones.
            WeightsNotFoundError, WeightsError: see `models.weight_files`.
        """
        config = config or PipelineConfig()
        if upsampler is None and use_loftup is None:
            upsampler = config.upsampler
        preset = get_preset(name) if isinstance(name, str) else name
        segmentor = LoftUpSCLIPSegmentor(
            device,
            use_loftup=use_loftup,
            loftup_model_name=loftup,
            use_pamr=config.use_pamr,
            verbose=False,
            preset=preset,
            attention=config.attention,
            upsampler=upsampler,
            upsampled=config.upsampled,
            anyup_model=anyup,
            whole_image=config.whole_image,
            text_space=config.text_space,
            loftup_share=config.loftup_share,
            precision=config.precision,
        )
        if isinstance(segmentor.upsampler, str):
            config = dataclasses.replace(config, upsampler=segmentor.upsampler)
        sam = load_sam2(preset.sam, model_cfg=model_cfg, checkpoint=checkpoint)
        names = {
            "preset": preset.name,
            "device": str(segmentor.device),
            "protocol": segmentor.protocol.name,
            "loftup": str(loftup or preset.loftup) if segmentor.use_loftup else "off",
            "anyup": str(anyup or DEFAULT_ANYUP) if segmentor.upsampler == "anyup" else "off",
            "sam2": os.path.basename(str(model_cfg or preset.sam.model_cfg)),
        }
        dtype = check_precision(config.precision, segmentor.device)
        return cls(segmentor, Sam2Masks(sam.to(segmentor.device), dtype=dtype), config, names)

    def vocabulary(
        self,
        words: Sequence[str] | Vocabulary,
        background: Sequence[str] | None = None,
        not_words: Sequence[str] = (),
        thresholds: Mapping[str, float] | None = None,
    ) -> Vocabulary:
        """What the user typed, with the protocol's background words unless others are given.

        Raises:
            ValueError, FileNotFoundError: see `Vocabulary.parse`; or more is given to a
                `Vocabulary`, which has it all.
        """
        if isinstance(words, Vocabulary):
            if background is not None or not_words or thresholds:
                raise ValueError(
                    "a Vocabulary brings its own background, not_words and thresholds: give them "
                    "to Vocabulary.parse"
                )
            return words
        if background is None:
            background = self.segmentor.protocol.background
        return Vocabulary.parse(words, background, not_words=not_words, thresholds=thresholds)

    def segment(
        self,
        image: ImageSource | EncodedImage,
        vocabulary: Sequence[str] | Vocabulary,
        *,
        background: Sequence[str] | None = None,
        not_words: Sequence[str] = (),
        thresholds: Mapping[str, float] | None = None,
        image_path: str | None = None,
        keep_probs: bool = False,
    ) -> Segmentation:
        """Find everything the words name.

        Args:
            image: path, PIL image, (H, W, 3) uint8 RGB array, or what `segmentor.encode` gave.
            vocabulary: class names; one may carry synonyms, "sofa,couch"; "@file" reads a list.
            background: words for everything else; None takes the protocol's, () none. A
                `Vocabulary` brings its own, as of the next two.
            not_words: what is not wanted, written like the vocabulary. It competes like a class,
                with masks of its own, and is then left out of the result.
            thresholds: class name → its least confidence instead of the configuration's.
            image_path: for the result, where `image` is not a path itself.
            keep_probs: the result has `probs`, for instance for heat maps.

        Raises:
            ValueError, FileNotFoundError: an image or a vocabulary that cannot be used.
        """
        words = self.vocabulary(vocabulary, background, not_words, thresholds)
        encoded = image if isinstance(image, EncodedImage) else self.segmentor.encode(image)
        if isinstance(image, str | os.PathLike):
            image_path = str(image)
        dense = self.segmentor.dense(encoded, words)
        return self.masks(encoded, dense, words, image_path=image_path, keep_probs=keep_probs)

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
        prompts, seconds = self.prompts(dense, words)
        timings = dense.timings | {"prompts": seconds}
        if prompts:
            start = clock(self.segmentor.device)
            self.sam.set_image(encoded.image)
            timings["sam_image"] = clock(self.segmentor.device) - start
        start = clock(self.segmentor.device)
        found = list(masks_from_prompts(self.sam, prompts, encoded.size, self.config))
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
            encoded.size,
        )
        # What is not wanted has won its pixels; here it goes.
        label_map[label_map > len(words)] = 0
        groups = [group for group in groups if found[group[0]]["class_idx"] < len(words)]
        kept = [found[group[0]] for group in groups]
        points = [[p for i in group for p in found[i]["points"]] for group in groups]
        regions = [f["mask_region"] for f in kept]
        masks = np.zeros((len(kept), *encoded.size), bool)
        for mask, region in zip(masks, regions, strict=True):
            mask[region.window] = region.mask
        timings["masks"] = clock(self.segmentor.device) - start
        return Segmentation(
            label_map=label_map,
            dense_map=self._dense_map(dense, words),
            masks=masks,
            class_ids=np.array([f["class_idx"] for f in kept], np.int64),
            scores=np.array([f["score"] for f in kept], np.float32),
            confidences=np.array([f["confidence"] for f in kept], np.float32),
            agreement=np.array([f["agreement"] for f in kept], np.float32),
            boxes=np.array([r.box for r in regions], np.float32).reshape(-1, 4),
            points=tuple(np.array(p, np.float32) for p in points),
            sources=tuple(f["source"] for f in kept),
            class_names=words.class_names,
            probs=self._probs(dense, words) if keep_probs else None,
            image_path=image_path,
            timings=timings,
            settings=self.names
            | self.config.to_dict()
            | {
                "upsampler": upsampler_name(self.segmentor.upsampler),
                "text_space": getattr(self.segmentor, "text_space", None),
                "loftup_share": getattr(self.segmentor, "loftup_share", None),
                "vocabulary": [list(group) for group in words.words],
                "background": list(words.background),
                "not_words": [list(group) for group in words.not_words],
                "thresholds": words.own_thresholds,
                "prompts": len(prompts),
            },
            versions=versions(),
        )

    def prompts(self, dense: DenseResult, words: Vocabulary) -> tuple[list[Prompt], float]:
        """The prompts of a dense map, and the seconds it took to find them."""
        start = clock(self.segmentor.device)
        prompts = extract_prompt_points_from_upsampled(
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
        return prompts, clock(self.segmentor.device) - start

    @staticmethod
    def _dense_map(dense: DenseResult, words: Vocabulary) -> np.ndarray:
        """Labels in the result's coding: 0 not wanted or background, i + 1 class i."""
        labels = dense.labels + 1
        labels[labels > len(words)] = 0
        return labels.astype(np.uint8 if len(words) < 255 else np.uint16)

    @staticmethod
    def _probs(dense: DenseResult, words: Vocabulary) -> np.ndarray:
        """Probabilities of the classes and the background, without what is not wanted."""
        if not words.not_words:
            return dense.probs
        count = len(words)
        return np.delete(dense.probs, np.s_[count : count + len(words.not_words)], axis=0)


def versions() -> dict[str, str]:
    """Versions of Python and the packages that a result depends on."""
    return {"python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in _PACKAGES
    }
