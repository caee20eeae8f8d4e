"""A backbone's probes in a folder: what is kept, gone on with, and refused."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from models.backbones.base import Backbone
from models.upsamplers.base import Resize, Upsampler
from pipeline.datasets import open_dataset
from pipeline.evaluation.probe.run import NONE, NamedUpsampler, ProbeRun
from pipeline.evaluation.probe.training import ProbeConfig
from pipeline.evaluation.probe.views import View
from pipeline.files.label_png import write_index_png

H, W = 24, 40
SEEDS = (0, 1)


class Negative(Upsampler):
    """Bilinear, but it leaves the space of the features."""

    def upsample(self, features, guide, size):
        return -nn.functional.interpolate(features, size, mode="bilinear")


@pytest.fixture
def folder(tmp_path):
    """Pictures whose left part is dark, label 0, and whose right part is bright, label 1."""
    for split, count in (("train", 4), ("test", 2)):
        for number in range(count):
            labels = np.zeros((H, W), np.uint8)
            labels[:, 12 + 4 * number :] = 1
            image, truth = (tmp_path / "data" / k / split for k in ("images", "labels"))
            image.mkdir(parents=True, exist_ok=True)
            picture = np.repeat(labels[:, :, None] * 200 + 20, 3, axis=2)
            Image.fromarray(picture).save(image / f"{number}.png")
            write_index_png(truth / f"{number}.png", labels)
    return tmp_path


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    network = nn.Conv2d(3, 6, 4, stride=4).eval().requires_grad_(False)
    return Backbone("patches", 6, 4, (0.5,) * 3, (0.5,) * 3, network, network)


def run(folder, backbone, **changes) -> ProbeRun:
    config = ProbeConfig(**{"epochs": 20, "lr": 0.05, "batch": 2, "pixels": 300} | changes)
    train, test = (open_dataset("folder", folder / "data", split) for split in ("train", "test"))
    return ProbeRun(folder / "out", backbone, train, test, View(), config, SEEDS)


def iou(counts) -> float:
    inside, union = counts["mIoU"].sum((0, 1))
    return float((inside / union).mean())


BILINEAR = NamedUpsampler(name="bilinear", upsampler=Resize("bilinear"))


def test_own_and_low_res(folder, backbone):
    probes = run(folder, backbone)
    none, bilinear = probes.score(NONE), probes.score(BILINEAR)
    negative = probes.score(NamedUpsampler(name="negative", upsampler=Negative()))
    assert none["own"]["mIoU"].shape == (len(SEEDS), 2, 2, 2)
    for metric, counts in none["own"].items():
        np.testing.assert_array_equal(counts, none["low-res"][metric])
    assert iou(none["own"]) > 0.9 and iou(bilinear["low-res"]) > 0.9
    # A probe of its own takes the sign back, that of the features cannot.
    assert iou(negative["own"]) > 0.9 and iou(negative["low-res"]) < 0.2


def test_it_goes_on_where_it_stopped(folder, backbone, monkeypatch):
    first = run(folder, backbone).score(BILINEAR)
    place = folder / "out" / "bilinear"
    trained = place / "20_epochs_lr_0.05_batch_2"
    (trained / "scores" / "0_1" / "test" / "1.npz").unlink()
    (trained / "1.npz").unlink()
    (place / "pixels" / "train" / "2.npy").unlink()
    kept = (place / "pixels" / "train" / "1.npy").stat().st_mtime_ns
    second = run(folder, backbone).score(BILINEAR)
    for probe, counts in first.items():
        for name, values in counts.items():
            np.testing.assert_array_equal(values, second[probe][name])
    assert (place / "pixels" / "train" / "1.npy").stat().st_mtime_ns == kept
    # With all scores there, nothing is computed.
    monkeypatch.setattr(ProbeRun, "_counts", lambda *_: pytest.fail("scored again"))
    monkeypatch.setattr(ProbeRun, "_train", lambda *_: pytest.fail("trained again"))
    run(folder, backbone).score(BILINEAR)


def test_other_trainings_share_features_and_pixels(folder, backbone, monkeypatch):
    run(folder, backbone).score(BILINEAR)
    monkeypatch.setattr("pipeline.evaluation.probe.run.view_features", pytest.fail)
    monkeypatch.setattr("pipeline.evaluation.probe.run.pixel_features", pytest.fail)
    short = run(folder, backbone, epochs=1, lr=1e-6).score(BILINEAR)
    assert iou(short["own"]) < 0.9


def test_other_settings_are_refused(folder, backbone):
    run(folder, backbone).score(BILINEAR)
    with pytest.raises(ValueError, match=r"pixels: 300, now 9"):
        run(folder, backbone, pixels=9)
    other = NamedUpsampler(name="bilinear", upsampler=Negative())
    with pytest.raises(ValueError, match="made with other settings"):
        run(folder, backbone).score(other)
