"""SCLIP as one object: an image and class names in, a dense class map out, without training.

The drop-in class; the step itself is `models.dense`.

Shapes: K classes, D joint width, H W pixels of the image given.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .dense import Dense, DenseConfig, EncodedImage
from .images import ImageSource
from .networks import Networks
from .presets import Preset
from .protocols import Protocol
from .upsamplers.base import Upsampler
from .upsamplers.registry import UPSAMPLERS
from .vocabulary import Vocabulary

logger = logging.getLogger(__name__)


class SCLIPSegmentor(Dense):
    """Dense class maps from words, by published SCLIP (scores upsampled bilinearly).

    Args:
        device: "cuda", "mps", "cpu"; None takes the best there is.
        preset: which trained models, see `models.presets`.
        anyup_model: name, file or address of AnyUp's weights instead of the default.
        verbose: log what is loaded and how long each image took (level INFO).
        batch: windows encoded at once.

    The others are settings of `models.dense.DenseConfig`.

    Raises:
        ValueError: an unknown name, listing the valid ones.
        WeightsNotFoundError, WeightsError: see `models.weight_files`.
    """

    def __init__(
        self,
        device: str | torch.device | None = None,
        *,
        preset: str | Preset = "vit-b16",
        attention: str = "csa",
        statistics: str = "clip",
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
        if upsampler == "loftup":
            valid = ", ".join(name for name in UPSAMPLERS if name != "loftup")
            raise ValueError(
                f"upsampler 'loftup' is LoftUpSCLIPSegmentor's; SCLIPSegmentor has: {valid}"
            )
        config = DenseConfig(
            protocol=protocol,
            attention=attention,
            statistics=statistics,
            upsampler=upsampler,
            upsampled=upsampled,
            whole_image=whole_image,
            use_pamr=use_pamr,
            use_sam=use_sam,
            precision=precision,
        )
        weights = {"anyup": anyup_model}
        self._load(Networks(preset, device, weights=weights, batch=batch), config, verbose)

    def _load(self, networks: Networks, config: DenseConfig, verbose: bool) -> None:
        Dense.__init__(self, networks, config)
        networks.load(self.config)
        self.verbose = verbose
        names = ", ".join(networks.used(self.config))
        level = logging.INFO if verbose else logging.DEBUG
        logger.log(level, "%s on %s: %s", networks.preset.name, self.device, names)

    def predict_dense(
        self,
        image: ImageSource | EncodedImage,
        class_names: Sequence[str] | Vocabulary,
        return_logits: bool = False,
        return_features: bool = False,
        *,
        background: Sequence[str] = (),
    ) -> Any:
        """The class of every pixel.

        Args:
            image: path, PIL image, (H, W, 3) uint8 RGB array, or an `EncodedImage`.
            class_names: K names; one may carry synonyms, "sofa,couch".
            return_logits: also give the logits.
            return_features: also give the features.
            background: words for everything else; with some, they are one more class, index K.

        Returns:
            `seg_map` (H, W) int64 with indices into `class_names`; then, as asked for, `logits`
            (K, H, W) float32 (log-probabilities: soft-max them over dim 0) and `features`
            (D, H, W) float32, upsampled. Alone, or a tuple in that order.
        """
        if not isinstance(class_names, Vocabulary):
            class_names = Vocabulary.parse(class_names, background)
        elif background:
            raise ValueError("a Vocabulary brings its own background: give it to Vocabulary.parse")
        dense = self.dense(image, class_names, return_features=return_features)
        results: list[np.ndarray | Tensor | None] = [dense.labels]
        if return_logits:
            results.append(torch.from_numpy(dense.probs).clamp_min(1e-30).log())
        if return_features:
            results.append(dense.features)
        return tuple(results) if len(results) > 1 else dense.labels
