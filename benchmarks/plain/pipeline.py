"""The whole pipeline as one would write it first, for comparison.

Every template is encoded at its full length, CLIP sees window by window, LoftUp is the published
computation (`benchmarks/plain/loftup.py`) with features at every pixel, and SAM 2 is the sam2
package's own predictor, asked prompt by prompt. Nothing is cached. All in float32.

Shapes: Q words, C joint width, N windows, h w patch grid, P prompts, H W pixels of the resized
image, H0 W0 of the image given.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.plain.loftup import plain_loftup
from models.clip_dense import dense_features
from models.images import load_image
from models.loftup.network import LoftUp, restore_text_space
from models.presets import Preset
from models.protocols import Protocol
from models.sam2_networks import build_sam2
from models.text import DEFAULT_TEMPLATES, Tokenizer
from models.weights import build_clip
from models.windows import resize_for_protocol, window_slices
from pipeline.app.options import SCENE

SIZE = (375, 500)
PROMPTS = (5, 8)  # rows and columns of clicks


@dataclass(frozen=True)
class Models:
    """The networks, the same objects for every way to run them."""

    clip: nn.Module
    tokenizer: Tokenizer
    loftup: LoftUp
    sam: Any  # sam2's SAM2Base


def random_models(preset: Preset) -> Models:
    """Networks of a preset's sizes, in eval mode on the CPU."""
    torch.manual_seed(0)
    clip, tokenizer = build_clip(preset.clip.architecture)
    loftup, sam = LoftUp(clip.visual.proj.shape[1]), build_sam2(preset.sam.model_cfg)
    for model in (clip, loftup, sam):
        model.eval().requires_grad_(False)
    return Models(clip, tokenizer, loftup, sam)


def scene() -> tuple[np.ndarray, tuple[str, ...], np.ndarray]:
    """The bundled scene as a small photograph, its words, and clicks (P, 2) all over it."""
    image = Image.fromarray(load_image(SCENE.path)).resize(SIZE[::-1], Image.Resampling.LANCZOS)
    ys, xs = (
        (np.arange(count) + 0.5) * length / count
        for count, length in zip(PROMPTS, SIZE, strict=True)
    )
    points = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2).astype(np.float32)
    return np.array(image), SCENE.words, points


class PlainPipeline:
    """The parts, called in this order; each leaves its result in an attribute."""

    text: Tensor  # (Q, C)
    features: Tensor  # (N, C, h, w)
    scores: Tensor  # (Q, H, W)
    embedding: Tensor  # of SAM 2, (1, C', S/16, S/16)
    masks: np.ndarray  # (P, H0, W0) bool, of each prompt the best by predicted IoU
    iou: np.ndarray  # (P, 3)

    def __init__(
        self,
        models: Models,
        protocol: Protocol,
        image: np.ndarray,
        words: tuple[str, ...],
        points: np.ndarray,
    ) -> None:
        """`image` (H0, W0, 3) uint8 RGB, `points` (P, 2) pixels (x, y); windows by `protocol`."""
        self.models, self.image, self.words, self.points = models, image, words, points
        visual = models.clip.visual
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (visual.image_mean, visual.image_std))
        resized = resize_for_protocol(image, protocol.short_side, protocol.long_side)
        self._tensor = (torch.from_numpy(resized).permute(2, 0, 1) / 255 - mean)[None] / std
        self._slices = window_slices(resized.shape[:2], protocol.window, protocol.stride)

    @torch.no_grad()
    def run_text(self) -> None:
        vectors = []
        for word in self.words:
            tokens = self.models.tokenizer([template(word) for template in DEFAULT_TEMPLATES])
            unit = F.normalize(self.models.clip.encode_text(tokens), dim=1)
            vectors.append(F.normalize(unit.mean(dim=0), dim=0))
        self.text = torch.stack(vectors)

    @torch.no_grad()
    def run_clip(self) -> None:
        windows = (self._tensor[:, :, row, column] for row, column in self._slices)
        self.features = torch.cat([dense_features(self.models.clip, w) for w in windows])

    @torch.no_grad()
    def run_loftup(self) -> None:
        loftup, size = self.models.loftup, self._tensor.shape[2:]
        total, count = torch.zeros(len(self.text), *size), torch.zeros(size)
        for (row, column), features in zip(self._slices, self.features, strict=True):
            upsampled = plain_loftup(loftup, features[None], self._tensor[:, :, row, column])
            upsampled = restore_text_space(upsampled, features[None], loftup.channelnorm.norm)
            unit = F.normalize(upsampled[0], dim=0)
            total[:, row, column] += torch.einsum("chw,qc->qhw", unit, self.text)
            count[row, column] += 1
        self.scores = total / count

    def run_sam_image(self) -> None:
        from sam2.sam2_image_predictor import SAM2ImagePredictor

        with warnings.catch_warnings():  # sam2 scripts its transforms, which torch deprecates
            warnings.simplefilter("ignore")
            self._predictor = SAM2ImagePredictor(self.models.sam)
        sides = [self.models.sam.image_size // stride for stride in (4, 8, 16)]
        self._predictor._bb_feat_sizes = [(side, side) for side in sides]
        self._predictor.set_image(self.image)
        self.embedding = self._predictor.get_image_embedding()

    def run_sam_prompts(self) -> None:
        masks, ious = [], []
        for point in self.points:
            found, iou, _ = self._predictor.predict(point[None], np.ones(1, np.int64))
            masks.append(found[iou.argmax()].astype(bool))
            ious.append(iou)
        self.masks, self.iou = np.stack(masks), np.stack(ious)
