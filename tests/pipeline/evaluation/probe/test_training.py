"""The probe: which pixels it learns from, what it learns, and the cheap way against the plain."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models.upsamplers.base import Resize, Upsampler
from models.upsamplers.guided_filter import GuidedFilter
from models.upsamplers.joint_bilateral import JointBilateral
from pipeline.evaluation.probe.training import (
    Probe,
    ProbeConfig,
    drawn_pixels,
    pixel_features,
    probe_labels,
    train_probe,
)

H, W, C, K = 12, 20, 5, 3
VOID = 255


class Squares(Upsampler):
    """Mixes channels, so that scores cannot be upsampled instead."""

    def upsample(self, features, guide, size):
        return F.interpolate(features, size, mode="bilinear").square()


@pytest.fixture
def scene():
    torch.manual_seed(0)
    return torch.randn(1, C, 3, 5), torch.rand(1, 3, H, W)


def test_pixels_depend_on_the_id_alone():
    first = drawn_pixels("a/1", 50, (H, W))
    assert len(set(first)) == 50 and (np.diff(first) > 0).all() and 0 <= first[0]
    assert first[-1] < H * W
    np.testing.assert_array_equal(first, drawn_pixels("a/1", 50, (H, W)))
    assert (first != drawn_pixels("a/2", 50, (H, W))).any()
    np.testing.assert_array_equal(drawn_pixels("a/1", H * W + 1, (H, W)), np.arange(H * W))


@pytest.mark.parametrize("upsampler", [Resize("bilinear"), JointBilateral(), Squares()])
def test_features_of_pixels(scene, upsampler):
    pixels = drawn_pixels("x", 70, (H, W))
    found = pixel_features(upsampler, *scene, pixels)
    whole = upsampler.upsample(*scene, (H, W))[0].flatten(1).T
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, whole[pixels].numpy(), atol=2e-3, rtol=2e-3)


def test_features_beyond_16_bits_are_refused(scene):
    with pytest.raises(ValueError, match="beyond what 16 bits hold"):
        pixel_features(Resize("bilinear"), scene[0] * 1e6, scene[1], np.arange(9))


@pytest.mark.parametrize(
    "upsampler",
    [Resize("nearest-exact"), Resize("bicubic"), JointBilateral(), GuidedFilter(), Squares()],
)
def test_labels_by_scores_are_those_by_features(scene, upsampler):
    probes = [Probe(torch.randn(K, C), torch.randn(K)) for _ in range(2)]
    found = probe_labels(probes, upsampler, *scene)
    assert found.shape == (2, H, W) and found.dtype == np.uint8
    upsampled = upsampler.upsample(*scene, (H, W))[0]
    for probe, labels in zip(probes, found, strict=True):
        scores = torch.einsum("kc,chw->khw", probe.weight, upsampled) + probe.bias[:, None, None]
        best = scores.topk(2, dim=0).values
        sure = (best[0] - best[1] > 1e-4).numpy()
        assert sure.mean() > 0.95
        np.testing.assert_array_equal(labels[sure], scores.argmax(0).numpy()[sure])


def made_up_pixels() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Of 5 images: label k is where channel k is large; every tenth pixel is void."""
    rng = np.random.default_rng(0)
    images = {}
    for number in range(5):
        labels = rng.integers(0, K, 60).astype(np.uint8)
        features = rng.normal(0, 0.1, (60, C))
        features[np.arange(60), labels] += 1
        labels[::10] = VOID
        images[f"{number}"] = features.astype(np.float16), labels
    return images


def test_it_learns_and_repeats_itself():
    images = made_up_pixels()

    def train(seed: int) -> Probe:
        config = ProbeConfig(epochs=30, lr=0.03, batch=2, pixels=60)
        return train_probe(list(images), images.__getitem__, (K, C), config, seed=seed, ignore=VOID)

    probe, again, other = train(0), train(0), train(1)
    torch.testing.assert_close(probe.weight, again.weight, rtol=0, atol=0)
    assert (probe.weight != other.weight).any()
    assert (probe.weight[:, :K].argmax(1) == torch.arange(K)).all()


def test_it_is_the_published_training():
    """With all pixels: a convolution, cross-entropy over whole label maps, NAdam."""
    rng = np.random.default_rng(1)
    maps = torch.from_numpy(rng.normal(size=(4, C, H, W)).astype(np.float16)).float()
    truth = torch.from_numpy(rng.integers(0, K, (4, H, W)).astype(np.int64))
    truth[:, 0] = VOID
    config = ProbeConfig(epochs=3, lr=0.01, batch=4, pixels=H * W)

    def load(image_id: str) -> tuple[np.ndarray, np.ndarray]:
        i = int(image_id)
        features = maps[i].flatten(1).T.half().numpy()
        return features, truth[i].flatten().numpy().astype(np.uint8)

    found = train_probe(list("0123"), load, (K, C), config, seed=7, ignore=VOID)
    torch.manual_seed(7)
    layer = nn.Conv2d(C, K, 1)
    optimizer = torch.optim.NAdam(layer.parameters(), lr=0.01)
    for _ in range(3):
        loss = F.cross_entropy(layer(maps), truth, ignore_index=VOID)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.testing.assert_close(found.weight, layer.weight.detach().flatten(1), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.bias, layer.bias.detach(), atol=1e-5, rtol=0)


def test_void_alone_changes_nothing():
    images = {"0": (np.ones((4, C), np.float16), np.full(4, VOID, np.uint8))}
    probe = train_probe(
        ["0"], images.__getitem__, (K, C), ProbeConfig(pixels=4), seed=3, ignore=VOID
    )
    assert probe.weight.isfinite().all()


def test_settings_are_checked():
    with pytest.raises(ValueError, match="lr of the probe must be positive, got 0"):
        ProbeConfig(lr=0)
