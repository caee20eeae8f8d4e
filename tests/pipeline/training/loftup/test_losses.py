"""Windows and losses against hand-made answers."""

import dataclasses

import numpy as np
import pytest
import torch

from pipeline.training.loftup.crops import choose_windows, upsample_windows
from pipeline.training.loftup.losses import (
    affinity,
    affinity_loss,
    anchor_loss,
    mask_loss,
    total_variation,
)
from pipeline.training.loftup.norms import batch_norms, freeze_norms, recalibrate
from pipeline.training.loftup.targets import stage1_target


def test_windows_begin_at_cells_and_stay_inside(masks):
    starts = choose_windows(masks, np.random.default_rng(0), count=60, side=16, patch=16)
    assert set(starts) == {(y, x) for y in (0, 16) for x in (0, 16, 32)}


def test_windows_are_cut_from_the_whole(example, loftup):
    features, images = (x[None].repeat(2, 1, 1, 1) for x in (example.features, example.image))
    starts = [[(0, 0)], [(16, 32), (0, 16)]]
    with pytest.raises(ValueError, match="do not fit images"):
        upsample_windows(loftup, features, images, starts, side=48)
    with torch.no_grad():
        together = upsample_windows(loftup, features, images, starts, side=16)
        whole = loftup(features[:1], images[:1])[0]
        cut = [whole[:, top:, left:][:, :16, :16] for top, left in ((0, 0), (16, 32), (0, 16))]
        torch.testing.assert_close(together, torch.stack(cut), atol=1e-5, rtol=1e-5)
        square, grid = images[:1, :, :, :32], features[:1, :, :, :2]
        whole = upsample_windows(loftup, grid, square, [[(0, 0)]], side=32)
        torch.testing.assert_close(whole, loftup(grid, square), atol=1e-5, rtol=1e-5)


def test_phases_learn_only_if_they_are_to(example, loftup):
    biases = loftup.upsampler.fourier_feat[1].biases
    for learns in (False, True):
        biases.requires_grad_(learns)
        features, image = example.features[None], example.image[None]
        upsample_windows(loftup, features, image, [[(0, 0)]], side=16).square().sum().backward()
        assert (biases.grad is not None) is learns


def test_norms_take_the_statistics_of_whole_images_and_stay(example, loftup):
    norm = batch_norms(loftup)[0]
    before = norm.running_mean.clone()
    loftup.train()
    recalibrate(loftup, [example.image], np.random.default_rng(0))
    assert norm.training and norm.momentum == 0.1 and not torch.equal(before, norm.running_mean)
    freeze_norms(loftup)
    kept = norm.running_mean.clone()
    upsample_windows(loftup, example.features[None], example.image[None], [[(0, 0)]], side=16)
    torch.testing.assert_close(norm.running_mean, kept, atol=0, rtol=0)


def test_anchor_compares_means_with_cells(example, loftup):
    normed = loftup.channelnorm(example.features[None]).detach()
    starts = [[(0, 0), (16, 32)]]
    cells = torch.stack([normed[0, :, 0, 0], normed[0, :, 1, 2]])[..., None, None]
    noise = torch.randn(2, 8, 16, 16)
    noise -= noise.mean((2, 3), keepdim=True)
    assert anchor_loss(cells + noise, normed, starts, 16) < 1e-10
    off = anchor_loss(cells + noise + 0.5, normed, starts, 16)
    assert off.item() == pytest.approx(0.25, rel=1e-4)


def test_anchor_counts_whole_patches_alone():
    whole = torch.arange(8.0).view(1, 1, 2, 4)
    image = whole.repeat_interleave(4, 2).repeat_interleave(4, 3)  # (1, 1, 8, 16)
    for top, left in ((0, 3), (0, 4), (0, 8)):
        window = image[:, :, top : top + 8, left : left + 8].clone()
        assert anchor_loss(window, whole, [[(top, left)]], 4) == 0
    window = image[:, :, :8, 3:11].clone()
    window[..., 0] = window[..., 5:] = 99.0  # parts of patches
    assert anchor_loss(window, whole, [[(0, 3)]], 4) == 0
    window[0, 0, 0, 1] += 16  # 1 more in the mean of one of two patches
    assert anchor_loss(window, whole, [[(0, 3)]], 4).item() == pytest.approx(0.5)


def test_total_variation_by_hand():
    maps = torch.tensor([[[[0.0, 1.0], [3.0, 3.0]]]])
    assert total_variation(maps).item() == pytest.approx((9 + 4) / 2 + (1 + 0) / 2)


def test_mask_loss_is_zero_at_the_target_alone(example, loftup):
    starts = [[(0, 0), (16, 32)]]
    normed = loftup.channelnorm(example.features[None])[0].detach()
    target = torch.stack([stage1_target(example, normed, 0.9, (*s, 16)) for s in starts[0]])
    assert abs(mask_loss(target, target, [example], starts, 20.0)) < 1e-6
    assert mask_loss(target.flip(1), target, [example], starts, 20.0) > 1e-3
    bare = dataclasses.replace(example, joint=example.joint[:0])
    with_and_without = mask_loss(target, target, [example, bare], [[(0, 0)], [(16, 32)]], 20.0)
    assert abs(with_and_without) < 1e-6


def test_affinities_by_hand():
    pixels = torch.tensor([[[3.0, 0.0, 1.0], [0.0, 2.0, 1.0]]])  # e1, e2 and their diagonal
    half = 0.5**0.5
    expected = [[[1, 0, half], [0, 1, half], [half, half, 1]]]
    torch.testing.assert_close(affinity(pixels), torch.tensor(expected))


def test_affinity_loss_by_hand_and_under_rotation():
    target = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])  # (1, 2, 1, 2): two orthogonal pixels
    same = torch.ones(1, 2, 1, 2)  # two equal pixels
    chosen = torch.tensor([[0, 1]])
    assert affinity_loss(same, target, chosen).item() == pytest.approx(0.5)  # two of four differ
    assert affinity_loss(same, target, chosen[:, :1]).item() == pytest.approx(0)
    torch.manual_seed(0)
    output, turn = torch.randn(2, 8, 4, 4), torch.linalg.qr(torch.randn(8, 8)).Q
    turned = torch.einsum("cd,ndhw->nchw", turn, output)
    pixels = torch.arange(16).expand(2, -1)
    assert affinity_loss(turned, output, pixels) < 1e-10  # why stage 2 needs the anchor
    pooled = torch.nn.functional.avg_pool2d(output, 2)
    assert anchor_loss(turned, pooled, [[(0, 0)], [(0, 0)]], 2) > 0.1
