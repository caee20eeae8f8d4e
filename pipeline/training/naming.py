"""How well dense features name the pixels of held-out scenes: mean IoU, also near outlines alone.

Shapes: K classes with background as class 0, Q query words, C joint width, H×W pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.text import DEFAULT_TEMPLATES, Tokenizer, encode_words

from ..world.scenes import VOC_NOUNS, Scene, World, render_scene

EVAL_NOUNS = (*VOC_NOUNS, "tree", "building")
BACKGROUND = ("background", "backdrop")
HELD_OUT = 999  # first of the two numbers that seed a held-out scene; training seeds differ


def held_out_scene(world: World, i: int, size: tuple[int, int]) -> Scene:
    """Scene number `i` of those that no training run sees, with the evaluation's nouns."""
    return render_scene(world, np.random.default_rng([HELD_OUT, i]), size=size, nouns=EVAL_NOUNS)


class Namer:
    """The evaluation's classes as text vectors of one CLIP; names patches or pixels.

    Every surface of the world is part of the background class.
    """

    def __init__(self, clip: nn.Module, tokenizer: Tokenizer, world: World) -> None:
        background = (*(name for names in world.stuff for name in names), *BACKGROUND)
        groups = [background, *((noun,) for noun in EVAL_NOUNS)]
        self.count = len(groups)
        self._class_of = {noun: k for k, noun in enumerate(EVAL_NOUNS, start=1)}
        self._owner = torch.tensor([k for k, words in enumerate(groups) for _ in words])
        flat = [word for words in groups for word in words]
        self._text = encode_words(clip, tokenizer, flat, DEFAULT_TEMPLATES[::10])  # (Q, C)

    def ground_truth(self, scene: Scene) -> np.ndarray:
        """(H, W) int64 classes of a scene."""
        return scene.label_map(self._class_of)

    def scores(self, features: Tensor) -> Tensor:
        """Cosine with the best word of every class: (C, H, W) -> (K, H, W)."""
        words = torch.einsum("chw,qc->qhw", F.normalize(features.float(), dim=0), self._text)
        return torch.stack([words[self._owner == k].amax(0) for k in range(self.count)])


def upsample(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """(K, h, w) scores to pixels, bilinearly."""
    return F.interpolate(scores[None], size, mode="bilinear", align_corners=False)[0]
