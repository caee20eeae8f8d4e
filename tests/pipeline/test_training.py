"""Targets and losses of the CLIP and LoftUp trainings against hand-made answers; short runs."""

import argparse
import csv
import signal
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from models.loftup import LoftUp
from models.weights import build_clip, load_loftup
from pipeline.training import clip as clip_training
from pipeline.training import loftup as loftup_training
from pipeline.training.loftup_loss import loss_terms, upsample_windows
from pipeline.training.loftup_targets import (
    Example,
    cell_shares,
    choose_windows,
    enlarge_window,
    mask_features,
    mask_map,
)
from pipeline.training.loop import Run
from pipeline.world import Scene

H, W = 32, 48  # 2×3 cells of 16 pixels


@pytest.fixture
def scene() -> Scene:
    """Sky over grass (surfaces 4 and 9) with an object on the right half of the first cell."""
    instances = np.zeros((H, W), np.int16)
    instances[:16, 8:16] = 1
    stuff = np.full((H, W), 4, np.uint8)
    stuff[16:] = 9
    return Scene(np.zeros((H, W, 3), np.uint8), instances, ("thing",), stuff)


def test_masks_are_objects_and_surfaces(scene):
    masks = mask_map(scene)
    assert masks.shape == (H, W) and masks.max() == 2
    assert len({masks[0, 0], masks[0, 8], masks[31, 0]}) == 3
    shares = cell_shares(masks, (2, 3))
    np.testing.assert_allclose(shares.sum(0), 1)
    np.testing.assert_allclose(shares[masks[0, 8]], [0.5, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(shares[masks[0, 0]], [0.5, 1, 1, 0, 0, 0])
    np.testing.assert_allclose(shares[masks[31, 0]], [0, 0, 0, 1, 1, 1])


def test_mask_features_trust_pure_cells(scene):
    masks = mask_map(scene)
    shares = torch.from_numpy(cell_shares(masks, (2, 3)))
    features = torch.tensor([[[8.0, 2.0, 4.0], [1.0, 1.0, 7.0]]])  # (1, 2, 3)
    means = mask_features(features, shares)
    assert means[masks[0, 8]].item() == 8  # its only cell, pure or not
    assert means[masks[0, 0]].item() == pytest.approx((0.25 * 8 + 2 + 4) / 2.25)
    assert means[masks[31, 0]].item() == pytest.approx(3)


@pytest.mark.parametrize("mode", ["bicubic", "bilinear"])
def test_enlarged_window_is_cut_from_the_whole(mode):
    grid = torch.randn(4, 2, 3)
    whole = F.interpolate(grid[None], (H, W), mode=mode)[0]
    window = enlarge_window(grid, (H, W), top=16, left=8, side=16, mode=mode)
    torch.testing.assert_close(window, whole[:, 16:, 8:24], atol=1e-5, rtol=1e-5)


def test_windows_begin_at_cells_and_stay_inside(scene):
    masks, rng = mask_map(scene), np.random.default_rng(0)
    starts = choose_windows(masks, rng, count=60, side=16, cell=16)
    assert set(starts) == {(y, x) for y in (0, 16) for x in (0, 16, 32)}


@pytest.fixture
def examples(scene) -> tuple[LoftUp, list]:
    torch.manual_seed(0)
    loftup = LoftUp(8).eval()
    features, masks = torch.randn(8, 2, 3), mask_map(scene)
    shares = torch.from_numpy(cell_shares(masks, (2, 3)))
    normed = loftup.channelnorm(features[None])[0].detach()
    example = Example(
        image=torch.randint(0, 255, (3, H, W), dtype=torch.uint8),
        features=features,
        masks=masks,
        normed=mask_features(normed, shares),
        joint=F.normalize(mask_features(features, shares), dim=1),
    )
    return loftup, [example]


def test_windows_together_equal_windows_alone(examples):
    loftup, (example,) = examples
    features, images = (
        example.features[None].repeat(2, 1, 1, 1),
        example.image[None].repeat(2, 1, 1, 1),
    )
    starts = [[(0, 0)], [(16, 32), (0, 16)]]
    with pytest.raises(ValueError, match="do not fit images"):
        upsample_windows(loftup, features, images, starts, side=32)
    with torch.no_grad():
        together = upsample_windows(loftup, features, images, starts, side=16)
        alone = [
            loftup(features[:1], images[:1], window=(top, left, 16, 16))
            for top, left in ((0, 0), (16, 32), (0, 16))
        ]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)


def test_loftup_losses(examples):
    loftup, (example,) = examples
    starts = [[(0, 0), (16, 32)]]
    normed = loftup.channelnorm(example.features[None])[0].detach()
    by_mask = example.normed[torch.from_numpy(example.masks)].movedim(2, 0)  # (C, H, W)
    target = [
        0.9 * by_mask[:, y : y + 16, x : x + 16] + 0.1 * enlarge_window(normed, (H, W), y, x, 16)
        for y, x in starts[0]
    ]
    target = torch.stack(target)
    right = loss_terms(loftup, target, [example], starts, 20.0)
    assert right["l2"] < 1e-10 and abs(right["mask"]) < 1e-6
    off = loss_terms(loftup, target + 0.5, [example], starts, 20.0)
    assert off["l2"].item() == pytest.approx(0.25, rel=1e-4)
    cells = torch.stack([normed[:, 0, 0], normed[:, 1, 2]])[..., None, None].expand(2, 8, 16, 16)
    anchored = loss_terms(loftup, cells, [example], starts, 20.0)
    assert anchored["anchor"] < 1e-10 < anchored["l2"] and anchored["mask"] > 1e-4


def test_patch_targets_of_clip():
    """Two patches of one object, the second shared with the surface: areas, not votes."""
    side = clip_training.SIDE
    instances = np.zeros((side, side), np.int16)
    instances[:16, 16:40] = 1
    scene = Scene(
        np.zeros((side, side, 3), np.uint8), instances, ("b",), np.ones((side, side), np.uint8)
    )

    class Names:
        index, stuff, names = {"a": 0, "b": 1}, 2, [("a",), ("b",), ("s",), ("t",)]

    shares, members = clip_training.patch_targets(scene, Names, merged=False)
    assert shares.shape == (196, 4) and members.shape == (1, 196)
    np.testing.assert_allclose(shares[:3], [[0, 0, 0, 1], [0, 1, 0, 0], [0, 0.5, 0, 0.5]])
    np.testing.assert_allclose(members[0, :4], [0, 1, 0.5, 0])
    merged, _ = clip_training.patch_targets(scene, Names, merged=True)
    np.testing.assert_allclose(merged[:3], [[0, 0, 1], [0, 1, 0], [0, 0.5, 0.5]])


class Stopper:
    """Sends the signal that ends a run after two more steps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left, cosine = 2, Run.cosine

        def counted(run: Run, *args, **kwargs) -> float:
            self.left -= 1
            if not self.left:
                signal.raise_signal(signal.SIGTERM)
            return cosine(run, *args, **kwargs)

        monkeypatch.setattr(Run, "cosine", counted)


def call(training: ModuleType, *options: str) -> int:
    parser = argparse.ArgumentParser()
    training.add_arguments(parser)
    return training.run(parser.parse_args([*options, "--threads", str(torch.get_num_threads())]))


def rows(folder) -> list[dict[str, str]]:
    with (folder / "log.csv").open() as file:
        return list(csv.DictReader(file))


def test_clip_run_stops_and_resumes(tmp_path, monkeypatch):
    options = ("--output", str(tmp_path), "--minutes", "9", "--batch", "2")
    stopper = Stopper(monkeypatch)
    assert call(clip_training, *options) == 0
    assert torch.load(tmp_path / "last.pt", weights_only=True)["step"] == 2
    with pytest.raises(FileExistsError, match="--resume"):
        call(clip_training, *options)
    stopper.left = 2
    assert call(clip_training, *options, "--resume") == 0
    assert torch.load(tmp_path / "last.pt", weights_only=True)["step"] == 4
    row = rows(tmp_path)[0]
    assert all(np.isfinite(float(row[name])) for name in ("csa", "region", "caption"))


def test_loftup_run_stops_resumes_and_exports(tmp_path, monkeypatch):
    torch.manual_seed(0)
    weights = tmp_path / "clip.safetensors"
    save_file(
        {
            k: v.contiguous()
            for k, v in build_clip(loftup_training.TINY / "clip")[0].state_dict().items()
        },
        str(weights),
    )
    output, file = tmp_path / "run", tmp_path / "loftup.safetensors"
    options = ("--output", str(output), "--clip", str(weights), "--minutes", "9", "--images", "2")
    options += ("--windows", "1", "--pool", "2", "--fresh", "1", "--validate-scenes", "1")
    with pytest.raises(FileNotFoundError, match="train first"):
        call(loftup_training, *options, "--export", str(file))
    stopper = Stopper(monkeypatch)
    assert call(loftup_training, *options, "--validate-minutes", "0") == 0
    stopper.left = 2
    assert call(loftup_training, *options, "--resume") == 0
    saved = torch.load(output / "last.pt", weights_only=True)
    assert saved["step"] == 4
    first = rows(output)[0]
    assert all(np.isfinite(float(first[name])) for name in loftup_training.WEIGHTS)
    assert all(0 <= float(first[name]) <= 100 for name in loftup_training.SCORES)

    assert call(loftup_training, *options, "--export", str(file)) == 0
    average = saved["average"]["weights"]
    assert load_file(file).keys() == average.keys()
    loaded = load_loftup(file).state_dict()
    assert loaded["upsampler.first_conv.2.num_batches_tracked"] == 4
    for name, value in loaded.items():
        torch.testing.assert_close(value, average[name], atol=1e-3, rtol=1e-3)
    # Frequencies finer than pixels are never listened to; colours and all else are.
    listened = loaded["upsampler.first_conv.1.weight"].abs().amax((0, 2, 3)) > 0
    assert listened.view(-1)[:200].view(2, 20, 5).all((0, 2)).tolist() == [True] * 11 + [False] * 9
    assert listened[200:].all()
