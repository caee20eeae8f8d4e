"""Masks and targets against hand-made answers."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pipeline.training.loftup import targets
from pipeline.training.loftup.masks import compact, draw_to_masks, drawing, refine, regions_of
from pipeline.training.loftup.samples import Sample, scene_masks
from pipeline.training.loftup.targets import (
    add_detail,
    make_examples,
    mask_weights,
    patch_shares,
    reduction,
    stage1_target,
    upsample_window,
)
from pipeline.world.scenes import Scene

from .conftest import CELL, H, W


def test_a_scenes_masks_are_objects_and_surfaces():
    instances, stuff = np.zeros((H, W), np.int16), np.full((H, W), 4, np.uint8)
    instances[:16, 8:16] = 1
    stuff[16:] = 9
    masks = scene_masks(Scene(np.zeros((H, W, 3), np.uint8), instances, ("thing",), stuff))
    assert masks.shape == (H, W) and masks.max() == 2
    assert len({masks[0, 0], masks[0, 8], masks[31, 0]}) == 3


def test_labels_become_mask_numbers():
    labels = np.array([[7, 7, 255], [3, 9, 9]])
    np.testing.assert_array_equal(compact(labels, 255), [[1, 1, -1], [0, 2, 2]])
    np.testing.assert_array_equal(compact(np.array([[-1, 5]]), -1), [[-1, 0]])


def test_patch_shares(masks):
    shares = patch_shares(masks, (2, 3))
    np.testing.assert_allclose(shares[0], [0.5, 1, 1, 0, 0, 0])
    np.testing.assert_allclose(shares[2], [0.5, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(shares[1], [0, 0, 0, 1, 1, 0.75])  # the hole belongs to nobody


def test_purity_trusts_pure_cells(masks):
    features = torch.tensor([8.0, 2.0, 4.0, 1.0, 1.0, 7.0])
    means = mask_weights(masks, (2, 3), purity=True) @ features
    assert means[2].item() == 8  # its only cell, pure or not
    assert means[0].item() == pytest.approx((0.25 * 8 + 2 + 4) / 2.25)
    assert means[1].item() == pytest.approx((1 + 1 + 0.5625 * 7) / 2.5625)


def test_the_papers_mean_is_that_of_upsampled_pixels(masks):
    features = torch.randn(4, 2, 3)
    pixels = F.interpolate(features[None], (H, W), mode="bicubic")[0]
    means = mask_weights(masks, (2, 3), purity=False) @ features.flatten(1).T
    for i in range(3):
        expected = pixels[:, torch.from_numpy(masks == i)].mean(1)
        torch.testing.assert_close(means[i], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
def test_upsampled_window_is_cut_from_the_whole(mode):
    grid = torch.randn(4, 2, 3)
    whole = F.interpolate(grid[None], (H, W), mode=mode)[0]
    window = upsample_window(grid, (H, W), (16, 8, 16), mode)
    torch.testing.assert_close(window, whole[:, 16:, 8:24], atol=1e-5, rtol=1e-5)


def test_reduction_is_by_area():
    expected = [[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]]
    torch.testing.assert_close(reduction(3, 2), torch.tensor(expected))
    image = torch.arange(16.0).view(4, 4)
    shrink = reduction(4, 2)
    torch.testing.assert_close(shrink @ image @ shrink.T, F.avg_pool2d(image[None], 2)[0])


def test_pixels_are_drawn_to_their_mask_or_left():
    masks = torch.tensor([[0, 0], [1, -1]])
    pixels = torch.tensor([[[1.0, 3.0], [5.0, 7.0]]])
    means = torch.tensor([[10.0], [20.0]])
    drawn = draw_to_masks(pixels, *drawing(means, masks, None, 0.8), masks)
    torch.testing.assert_close(drawn, torch.tensor([[[8.2, 8.6], [17.0, 7.0]]]))
    refined = refine(pixels, masks, None, alpha=0.5)
    torch.testing.assert_close(refined, torch.tensor([[[1.5, 2.5], [5.0, 7.0]]]))
    none = torch.full((2, 2), -1)
    torch.testing.assert_close(refine(pixels, none, None, alpha=0.5), pixels)


def test_target_of_stage_1(example, loftup):
    normed = loftup.channelnorm(example.features[None])[0].detach()
    whole = F.interpolate(normed[None], (H, W), mode="bicubic")[0]
    target = stage1_target(example, normed, 0.8, (16, 32, 16))
    torch.testing.assert_close(target[:, 0, 0], 0.8 * example.normed[1] + 0.2 * whole[:, 16, 32])
    torch.testing.assert_close(target[:, 15, 15], whole[:, 31, 47])  # in the hole


def test_examples_are_made_of_the_backbones_features(backbone, loftup, sample):
    (one, other) = make_examples(backbone, loftup.channelnorm, [sample, sample], purity=True)
    assert one.image.shape == (3, 64, 64) and one.features.shape == (8, 4, 4)
    torch.testing.assert_close(other.normed, one.normed)
    cells = loftup.channelnorm(one.features[None])[0]
    torch.testing.assert_close(one.normed[1], cells[:, :2, 2:].mean((1, 2)))  # all cells are pure
    torch.testing.assert_close(
        one.joint[2], F.normalize(one.features[:, 2:, :2].mean((1, 2)), dim=0)
    )


def test_detail_names_a_thing_of_half_a_cell(backbone, loftup, masks):
    colours = np.uint8([[0, 0, 250], [0, 200, 0], [240, 0, 0], [9, 9, 9]])
    image = colours[masks]  # the hole has the last colour
    (example,) = make_examples(backbone, loftup.channelnorm, [Sample(image, masks)], purity=True)
    large = image.repeat(2, 0).repeat(2, 1)
    detailed = add_detail(example, large, backbone, loftup.channelnorm)
    pure = torch.from_numpy(colours[[2]]).float()[..., None, None].expand(1, 3, CELL, CELL)
    feature = backbone.features(pure.byte())  # (1, C, 1, 1)
    wanted = loftup.channelnorm(feature)[0, :, 0, 0]
    torch.testing.assert_close(detailed.normed[2], wanted)
    assert not torch.allclose(example.normed[2], wanted, atol=0.1)  # half of it was sky
    torch.testing.assert_close(detailed.joint[2], F.normalize(feature[0, :, 0, 0], dim=0))
    assert detailed.features is example.features and detailed.masks is example.masks


def test_detail_of_masks_of_many_cells_counts_half(backbone, loftup, masks, monkeypatch):
    monkeypatch.setattr(targets, "FEW_PATCHES", 2)  # the grass fills more
    image = np.random.default_rng(0).integers(0, 255, (H, W, 3), np.uint8)
    (example,) = make_examples(backbone, loftup.channelnorm, [Sample(image, masks)], purity=True)
    large = image.repeat(2, 0).repeat(2, 1)
    mixed = add_detail(example, large, backbone, loftup.channelnorm)
    monkeypatch.setattr(targets, "FEW_PATCHES", 99)
    alone = add_detail(example, large, backbone, loftup.channelnorm)
    torch.testing.assert_close(mixed.normed[1], (example.normed[1] + alone.normed[1]) / 2)
    torch.testing.assert_close(mixed.normed[2], alone.normed[2])


def _discs() -> list[np.ndarray]:
    """A disc in a disc, and one that shares a part of both."""
    rows, columns = np.mgrid[:H, :W]
    return [
        np.hypot(rows - y, columns - x) < radius for y, x, radius in ((15, 20, 14), (15, 20, 6),
                                                                      (12, 30, 9))
    ]  # fmt: skip


def test_regions_are_what_the_same_masks_cover():
    masks = _discs()
    regions, members = regions_of(masks, (H, W))
    for mask, parts in zip(masks, members, strict=True):
        np.testing.assert_array_equal(np.isin(regions, np.flatnonzero(parts)), mask)
    assert len(np.unique(members, axis=1).T) == members.shape[1] == regions.max() + 1
    hidden, _ = regions_of([masks[1], masks[0], masks[0]], (H, W))
    np.testing.assert_array_equal(hidden == hidden[15, 20], masks[1])


def test_overlapping_masks_average_all_their_own_pixels():
    masks, alpha = _discs(), 0.8
    regions, members = (torch.from_numpy(x) for x in regions_of(masks, (H, W)))
    pixels = torch.randn(4, H, W)
    expected = pixels.clone()
    for mask in masks:  # Eq. 1, mask after mask
        inside = torch.from_numpy(mask)
        own = expected[:, inside]
        expected[:, inside] = alpha * own.mean(1, keepdim=True) + (1 - alpha) * own
    drawn = refine(pixels, regions, members, alpha)
    torch.testing.assert_close(drawn, expected, atol=1e-5, rtol=1e-5)
    # One mask per pixel, the smaller on top, is something else.
    top = torch.full((H, W), -1)
    for i, mask in enumerate(masks):
        top[torch.from_numpy(mask)] = i
    assert (refine(pixels, compact_tensor(top), None, alpha) - expected).norm() > 0.1


def compact_tensor(labels: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(compact(labels.numpy(), -1))


def test_target_of_overlapping_masks(backbone, loftup):
    masks = _discs()
    image = np.random.default_rng(0).integers(0, 255, (H, W, 3), np.uint8)
    sample = Sample(image, *regions_of(masks, (H, W)))
    (example,) = make_examples(backbone, loftup.channelnorm, [sample], purity=False)
    normed = loftup.channelnorm(example.features[None])[0].detach()
    bicubic = F.interpolate(normed[None], (H, W), mode="bicubic")[0]
    expected = refine(bicubic, example.masks, example.members, 0.8)
    target = stage1_target(example, normed, 0.8, (0, 8, 32))
    torch.testing.assert_close(target, expected[:, :, 8:40], atol=1e-5, rtol=1e-5)
