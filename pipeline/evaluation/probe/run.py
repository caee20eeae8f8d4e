"""Probes of one backbone on one data set, all that is dear kept in files.

    FOLDER/settings.json                         backbone, view, lists, pixels drawn
    FOLDER/features/<id>.npy                     (C, h, w) float16, before upsampling
    FOLDER/<upsampler>/settings.json             upsampler, its weights and code
    FOLDER/<upsampler>/pixels/<id>.npy           (P, C) float16, upsampled features of drawn pixels
    FOLDER/<upsampler>/<training>/<seed>.npz     probe trained on them
    FOLDER/<upsampler>/<training>/scores/…/<id>.npz    counts on a test image, of all seeds

Every file is there whole or not at all: an interrupted run goes on with what is missing.
Shapes: C channels, h×w cells, P pixels.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from models.backbones.base import Backbone
from models.upsamplers.base import OwnUpsampler, Resize, Upsampler

from ...datasets.base import Dataset
from ...files.atomic import sha256, write_atomically
from ...files.settings import claim_folder
from ..arm_scores import METRICS
from .scores import Counts, image_counts, stacked
from .training import Probe, ProbeConfig, drawn_pixels, pixel_features, probe_labels, train_probe
from .views import View, as_guide, view_features

# Trained on the upsampler's own output, or on the features before upsampling, every pixel with
# those of its patch: that is the own probe of "none".
PROBES = ("own", "low-res")
LOW_RES = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedUpsampler:
    """One that is judged.

    Attributes:
        name: for tables and folders.
        upsampler: it.
        weights: its file, if any.
    """

    name: str
    upsampler: Upsampler
    weights: Path | None = None

    def record(self) -> dict[str, Any]:
        """What decides its results: name, weights, and the file its class is written in."""
        own = self.upsampler
        own = own.own if isinstance(own, OwnUpsampler) else own
        file = getattr(sys.modules.get(own.__module__), "__file__", None)
        return {
            "upsampler": self.name,
            "weights": None if self.weights is None else sha256(self.weights),
            "code": None if file is None else sha256(Path(file)),
        }


NONE = NamedUpsampler(name=LOW_RES, upsampler=Resize("nearest-exact"))


class ProbeRun:
    """Features, probes and scores of one backbone, in one folder."""

    def __init__(
        self,
        folder: Path,
        backbone: Backbone,
        training: Dataset,
        test: Dataset,
        view: View,
        config: ProbeConfig,
        seeds: Sequence[int],
    ) -> None:
        """Claim the folder.

        Raises:
            ValueError: it holds results of other settings; the lists have other labels.
        """
        if training.labels != test.labels:
            raise ValueError(
                f"lists {training.split} and {test.split} must have the same labels, got "
                f"{len(training.labels)} and {len(test.labels)}"
            )
        self.folder, self.backbone, self.view = folder, backbone, view
        self.training, self.test, self.config, self.seeds = training, test, config, tuple(seeds)
        self._drawn_labels: dict[str, np.ndarray] = {}
        settings = {
            "backbone": backbone.name,
            "weights": backbone.weights,
            "training": [str(training.root), training.split, len(training.ids)],
            "test": [str(test.root), test.split, len(test.ids)],
            "view": view.record,
            "pixels": config.pixels,
        }
        claim_folder(folder, settings, taken=(folder / "features").exists(), what="features")

    def score(self, arm: NamedUpsampler) -> dict[str, dict[str, np.ndarray]]:
        """Counts (see `scores.stacked`) by probe: those of `PROBES`.

        Raises:
            ValueError, FileNotFoundError: an image or label map cannot be read; the upsampler's
                folder holds results of other settings.
        """
        place = self._trained(arm) / "scores" / "_".join(map(str, self.seeds))
        probes = [*self._probes(arm), *self._probes(NONE)]
        images = []
        for image_id in self._progress(self.test, f"{arm.name}: test"):
            file = place / f"{image_id}.npz"
            if not file.exists():
                self._write(file, self._counts(image_id, arm.upsampler, probes))
            images.append(_read_counts(file, len(probes)))
        number = len(self.seeds)
        return {
            "own": stacked([image[:number] for image in images]),
            "low-res": stacked([image[number:] for image in images]),
        }

    def features(self, dataset: Dataset, image_id: str) -> tuple[Tensor, Tensor, Any]:
        """Features (1, C, h, w), guide (1, 3, H, W) and truth of an image's view."""
        device = next(self.backbone.model.parameters()).device
        image, truth = self.view.load(dataset, image_id)
        guide = as_guide(image, device)
        file = self.folder / "features" / f"{image_id}.npy"
        if not file.exists():
            found = view_features(self.backbone, guide)[0].cpu().numpy().astype(np.float16)
            if not np.isfinite(found).all():
                raise ValueError(f"features of {self.backbone.name} are beyond 16 bits")
            write_atomically(file, _bytes(lambda f: np.save(f, found)))
        stored = torch.from_numpy(np.load(file)).to(device).float()
        return stored[None], guide, truth

    def _trained(self, arm: NamedUpsampler) -> Path:
        """The folder of an upsampler's probes."""
        config = self.config
        name = f"{config.epochs}_epochs_lr_{config.lr:g}_batch_{config.batch}"
        return self.folder / arm.name / name

    def _probes(self, arm: NamedUpsampler) -> list[Probe]:
        """Of each seed, on this upsampler's output."""
        place, probes = self.folder / arm.name, []
        claim_folder(place, arm.record(), taken=(place / "pixels").exists(), what="probes")
        for seed in self.seeds:
            file = self._trained(arm) / f"{seed}.npz"
            if not file.exists():
                probe = self._train(arm, seed)
                arrays = {"weight": probe.weight.numpy(), "bias": probe.bias.numpy()}
                self._write(file, arrays)
            with np.load(file) as found:
                probes.append(
                    Probe(torch.from_numpy(found["weight"]), torch.from_numpy(found["bias"]))
                )
        return probes

    def _train(self, arm: NamedUpsampler, seed: int) -> Probe:
        place = self.folder / arm.name / "pixels"
        for image_id in self._progress(self.training, f"{arm.name}: training pixels"):
            file = place / f"{image_id}.npy"
            if not file.exists():
                features, guide, _ = self.features(self.training, image_id)
                pixels = self._drawn(image_id, (guide.shape[2], guide.shape[3]))
                found = pixel_features(arm.upsampler, features, guide, pixels)
                write_atomically(file, _bytes(lambda f, found=found: np.save(f, found)))

        def load(image_id: str) -> tuple[np.ndarray, np.ndarray]:
            return np.load(place / f"{image_id}.npy"), self._labels(image_id)

        device = next(self.backbone.model.parameters()).device
        return train_probe(
            self.training.ids,
            load,
            (len(self.training.labels), self.backbone.dim),
            self.config,
            seed=seed,
            ignore=self.training.ignore,
            device=device,
        )

    def _labels(self, image_id: str) -> np.ndarray:
        if image_id not in self._drawn_labels:
            labels = self.view.load(self.training, image_id)[1].labels
            pixels = self._drawn(image_id, (labels.shape[0], labels.shape[1]))
            self._drawn_labels[image_id] = labels.reshape(-1)[pixels]
        return self._drawn_labels[image_id]

    def _drawn(self, image_id: str, size: tuple[int, int]) -> np.ndarray:
        return drawn_pixels(image_id, self.config.pixels, size)

    def _counts(
        self, image_id: str, upsampler: Upsampler, probes: Sequence[Probe]
    ) -> dict[str, np.ndarray]:
        features, guide, truth = self.features(self.test, image_id)
        labels, ignore = len(self.test.labels), self.test.ignore
        found: list[Counts] = [
            image_counts(truth, predicted, labels, ignore)
            for predicted in probe_labels(probes, upsampler, features, guide)
        ]
        return {f"{i}/{key}": value for i, one in enumerate(found) for key, value in one.items()}

    @staticmethod
    def _write(file: Path, arrays: dict[str, np.ndarray]) -> None:
        named: dict[str, Any] = arrays
        write_atomically(file, _bytes(lambda f: np.savez_compressed(f, **named)))

    @staticmethod
    def _progress(dataset: Dataset, what: str) -> tqdm:
        return tqdm(dataset.ids, desc=what, unit="image", disable=None)


def _read_counts(file: Path, probes: int) -> list[Counts]:
    with np.load(file) as found:
        return [{k: found[f"{i}/{k}"] for k in (*METRICS, "objects")} for i in range(probes)]


def _bytes(save: Callable[[io.BytesIO], object]) -> bytes:
    data = io.BytesIO()
    save(data)
    return data.getvalue()
