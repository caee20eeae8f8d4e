"""Small VOC folders and predictions, made by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from models.protocols import Protocol
from pipeline.datasets.voc import VocDataset
from pipeline.files.label_png import write_index_png

# What the random models tell apart; VOC's labels 4, 10, 12, 18, 20.
RANDOM_NAMES = ("bird", "boat", "cow", "dog", "sofa", "tvmonitor")
RANDOM_PROTOCOL = Protocol(
    name="random-voc", logit_scale=400, short_side=48, long_side=256, window=48, stride=24,
    background=("bat", "aeroplane", "sky"), class_names=RANDOM_NAMES,
    words=tuple((name,) for name in RANDOM_NAMES),
)  # fmt: skip


def coloured_noise(seed: int, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8: coarse spots, of which random models see different things."""
    spots = np.random.default_rng(seed).integers(0, 256, (5, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(spots).resize(size[::-1], Image.Resampling.BICUBIC))


def blocks(size: tuple[int, int], *rectangles: tuple[int, int, int, int, int]) -> np.ndarray:
    """(H, W) uint8 map of (value, top, left, bottom, right), later ones on top, ends exclusive."""
    values = np.zeros(size, np.uint8)
    for value, top, left, bottom, right in rectangles:
        values[top:bottom, left:right] = value
    return values


def write_voc(
    root: Path,
    truth: Mapping[str, np.ndarray],
    objects: Mapping[str, np.ndarray] | None = None,
) -> VocDataset:
    """A VOC folder whose pictures are noise, with the list `val`."""
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for seed, (name, labels) in enumerate(truth.items()):
        Image.fromarray(coloured_noise(seed, labels.shape)).save(root / f"JPEGImages/{name}.jpg")
        write_index_png(root / "SegmentationClass" / f"{name}.png", labels)
        if objects is not None:
            write_index_png(root / "SegmentationObject" / f"{name}.png", objects[name])
    (root / "ImageSets/Segmentation/val.txt").write_text("".join(f"{name}\n" for name in truth))
    return VocDataset.open(root)


def write_prediction(
    folder: Path, arm: str, name: str, labels: np.ndarray, **record: object
) -> None:
    """A prediction as `pipeline.evaluation.predict` writes it."""
    write_index_png(folder / arm / f"{name}.png", labels.astype(np.uint8))
    record = {"sha256": "0", "seconds": {"clip": 0.5}} | record
    (folder / arm / f"{name}.json").write_text(json.dumps(record))


def cut_short(path: Path) -> None:
    """Lose the second half of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
