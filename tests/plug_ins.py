"""What somebody adds in a file of their own: a trained upsampler, a dense method, a data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.clip_dense import csa
from models.dense_methods.settings import Given
from models.images import load_image
from models.upsamplers.base import Size, Upsampler
from pipeline.datasets.base import GroundTruth
from pipeline.files.label_png import read_index_png


class Sharpener(nn.Module):
    """A network with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(2.0))


def load_sharpener(path: str | Path) -> Sharpener:
    network = Sharpener()
    network.load_state_dict(torch.load(path, weights_only=True))
    return network.eval().requires_grad_(False)


class SharpenUpsampler(Upsampler):
    def __init__(self, network: Sharpener, text_space: str, dtype: torch.dtype) -> None:
        self.network = network

    def upsample(self, features: Tensor, guide: Tensor, size: Size) -> Tensor:
        large = F.interpolate(features, size, mode="bilinear")
        return large + self.network.gain * (large - large.mean((2, 3), keepdim=True))


def by_proxy(visual: nn.Module, tokens: Tensor, given: Given) -> Tensor:
    """CLIP's own block, each patch mixed with the one that a second network finds most alike."""
    tokens = csa(visual, tokens)
    alike = F.normalize(given.proxy.flatten(2), dim=1)  # (B, C', h·w)
    affinity = alike.transpose(1, 2) @ alike
    affinity.diagonal(dim1=1, dim2=2).fill_(-1)
    patches = tokens[:, 1:]
    nearest = affinity.argmax(2)[..., None].expand_as(patches)
    return torch.cat([tokens[:, :1], (patches + patches.gather(1, nearest)) / 2], dim=1)


NAMES = tuple(f"thing {number}" for number in range(1, 301))


@dataclass(frozen=True)
class Things:
    """300 classes in 16-bit label maps beside the pictures."""

    root: Path
    split: str
    ids: tuple[str, ...]
    labels: tuple[str, ...] = ("background", *NAMES)
    ignore: int = 65535
    official_size: int | None = None
    has_objects: bool = False

    @property
    def listed(self) -> int:
        return len(self.ids)

    def image_path(self, image_id: str) -> Path:
        return self.root / f"{image_id}.png"

    def label_paths(self, image_id: str) -> tuple[Path, ...]:
        return (self.root / "labels" / f"{image_id}.png",)

    def load_image(self, image_id: str) -> np.ndarray:
        return load_image(self.image_path(image_id))

    def load_truth(self, image_id: str) -> GroundTruth:
        return GroundTruth(read_index_png(*self.label_paths(image_id), wide=True), None)


def open_things(root: str | Path, split: str, limit: int | None) -> Things:
    ids = sorted(path.stem for path in Path(root).glob("*.png"))
    return Things(Path(root), split, tuple(ids[:limit]))
