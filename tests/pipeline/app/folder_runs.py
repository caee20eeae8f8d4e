"""What the tests of runs over many images share."""

import csv
import dataclasses
import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image
from torch import nn

from models.networks import digest
from models.protocols import Protocol
from pipeline.config import PipelineConfig
from pipeline.result import Segmentation
from pipeline.segmenter import Segmenter

WORDS = ["cat,kitten", "dog"]


class FastSegmenter(Segmenter):
    """Dark pixels are a cat; no network is run, and no clock."""

    def __init__(self, before: Callable[[str], None] = lambda path: None, **settings) -> None:
        clip = nn.Linear(2, 1)
        nn.init.ones_(clip.weight)
        nn.init.zeros_(clip.bias)
        protocol = Protocol(
            name="fake", logit_scale=40, short_side=48, long_side=256, window=48, stride=24
        )
        self.networks = SimpleNamespace(
            preset=SimpleNamespace(name="fake"),
            clip=clip,
            fingerprints=lambda config, sam: {"clip": digest(clip)},
        )
        self.dense = SimpleNamespace(protocol=protocol)
        self.config = PipelineConfig(protocol=protocol, **settings)
        self.before = before
        self.seen: list[str] = []  # paths of the images that were segmented

    def segment(self, image, vocabulary, *, image_path, keep_probs=False) -> Segmentation:
        self.before(image_path)
        self.seen.append(image_path)
        mask = image[..., 0] < 128
        found = int(mask.any())
        return dataclasses.replace(
            Segmentation.empty(mask.shape, vocabulary.class_names, image_path=image_path),
            label_map=mask.astype(np.uint8),
            probs=np.stack([mask * 0.8, 0.2 + ~mask * 0.6]) if keep_probs else None,
            masks=mask[None][:found],
            class_ids=np.zeros(found, np.int64),
            scores=np.ones(found),
            confidences=np.ones(found),
            agreement=np.ones(found),
            boxes=np.zeros((found, 4)),
            points=(np.zeros((1, 2)),) * found,
            sources=("sam2",) * found,
            timings={"clip": 0.25, "masks": 0.5},
        )


def save_image(path: Path, dark: int, size: tuple[int, int] = (6, 9)) -> Path:
    """A white picture of `size` (H, W) whose first `dark` columns are dark."""
    pixels = np.full((*size, 3), 255, np.uint8)
    pixels[:, :dark] = 10
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


NAMES = ["a", "b/a", "b/c.PNG", "b/c.bmp"]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def rows(output: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((output / "summary.csv").read_text(encoding="utf-8"))))
