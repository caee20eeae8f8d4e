"""Training data and losses of the tiny SAM 2, and very short runs."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from models.sam2_networks import build_sam2
from pipeline.training.sam2 import scenes as sam2_scenes
from pipeline.training.sam2 import train as training
from pipeline.training.sam2.examples import coarse_mask, make_batch, mirror, point_prompt, pole
from pipeline.training.sam2.scenes import SceneSource
from pipeline.world.scenes import Scene, load_world

from ..runs import call, different, interrupt_after, last, tensors

H, W = 30, 50


@pytest.fixture
def scene() -> Scene:
    """A 10×10 square at rows 5-14, columns 20-29, and a bar along the right border."""
    instances = np.zeros((H, W), np.int16)
    instances[5:15, 20:30] = 1
    instances[:, 46:] = 2
    image = np.zeros((H, W, 3), np.uint8)
    image[instances == 1] = (255, 0, 0)
    return Scene(image, instances, ("square", "bar"), np.zeros((H, W), np.uint8))


def test_pole_is_the_innermost_pixel():
    mask = np.zeros((9, 12), bool)
    mask[1, 1:11] = True
    mask[1:6, 3:8] = True  # a square with the line along its top
    assert pole(mask) == (5, 3)
    touching = np.zeros((7, 7), bool)
    touching[:, :5] = True  # the image's end is an outline as well
    assert pole(touching)[0] == 2


@pytest.mark.parametrize("tokens", [1, 2, 3, 4])
def test_points_lie_where_their_labels_say(scene, tokens):
    rng = np.random.default_rng(0)
    kinds = set()
    for _ in range(40):
        points, labels = point_prompt(scene.instances, 1, tokens, rng)
        assert points.shape == (tokens, 2) and labels.shape == (tokens,)
        kinds.add(tuple(labels.tolist()))
        for (x, y), label in zip(points.tolist(), labels.tolist(), strict=True):
            if label < 2:
                assert (scene.instances[int(y), int(x)] == 1) == (label == 1)
        if labels[0] == 2:
            assert np.abs(points[:2] - [[20, 5], [29, 14]]).max() <= 1
            assert labels[1] == 3
    assert len(kinds) == (1 if tokens == 1 else 2)  # with and without a box


def test_batch_scales_points_and_coverage_to_the_square(scene):
    batch = make_batch([scene, mirror(scene)], np.random.default_rng(3), side=32, most_objects=2)
    assert batch.images.shape == (2, 3, 32, 32) and batch.images.dtype == torch.uint8
    assert batch.owner.tolist() == [0, 0, 1, 1]
    assert batch.coverage.shape == (4, 16, 16)
    # the square covers 100 of 1500 pixels, the bar 120: order within a scene is random
    areas = batch.coverage.mean((1, 2)).view(2, 2).sort(1).values
    torch.testing.assert_close(areas, torch.tensor([[0.0667, 0.08]] * 2), atol=2e-3, rtol=0)
    # every positive point lies in a cell that its object covers, also in the mirrored scene
    for points, labels, coverage in zip(batch.points, batch.labels, batch.coverage, strict=True):
        for (x, y), label in zip(points.tolist(), labels.tolist(), strict=True):
            if label == 1:
                assert coverage[int(y / 2), int(x / 2)] > 0


def test_coarse_mask_is_positive_on_the_object_and_negative_far_away():
    coverage = np.zeros((64, 64), np.float32)
    coverage[16:40, 16:40] = 1
    rng = np.random.default_rng(0)
    prompts = [coarse_mask(coverage, np.zeros_like(coverage), (256, 320), rng) for _ in range(30)]
    mean = np.mean(prompts, 0)
    assert mean.shape == (64, 64)
    assert mean[22:34, 22:34].min() > 1 and mean[50:, 50:].max() < -1


def losses(logit: float, share: float) -> dict[str, float]:
    """Losses of masks that are `logit` on an object of 4×4 cells and `-logit` elsewhere."""
    # The outline lies between two cells' centres: where enlarged logits cross zero.
    coverage = torch.zeros(1, 32, 32)
    coverage[:, 8:16, 8:16] = 1
    logits = torch.full((1, 4, 16, 16), -logit)
    logits[:, :, 4:8, 4:8] = logit
    terms = training.loss_terms(logits, torch.ones(1, 4), coverage, share)
    return {name: value.item() for name, value in terms.items()}


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_losses_prefer_the_right_mask(share):
    right, unsure, wrong = (losses(logit, share) for logit in (8.0, 0.0, -8.0))
    assert right["mask"] < 0.1 < unsure["mask"] < wrong["mask"]
    assert right["best"] > 0.9 and wrong["best"] == 0
    assert right["iou"] < 0.01 and wrong["iou"] == 1  # against a predicted IoU of 1


def test_focal_weight_grows_with_progress():
    assert [training.focal_weight(p) for p in (0, 0.1, 0.4, 1)] == [0, 0, 1, 1]
    assert training.focal_weight(0.25) == pytest.approx(0.5)


def test_attention_runs_in_float32():
    q = torch.randn(1, 2, 4, 8)
    with training.precision("bf16", torch.device("cpu")):
        out = torch.nn.functional.scaled_dot_product_attention(q, q, q)
        product = q @ q.transpose(-1, -2)
    assert out.dtype == torch.float32 and product.dtype == torch.bfloat16


def test_scenes_follow_from_seed_and_step(monkeypatch):
    monkeypatch.setattr(sam2_scenes, "AGAIN_AFTER", 2)
    settings = {"images": 3, "objects": 2, "side": 32}
    through, fresh, other = (SceneSource(load_world(), seed, **settings) for seed in (1, 1, 2))
    batches = [through.batch(step) for step in range(3)]
    for name, value in vars(fresh.batch(2)).items():
        assert torch.equal(value, getattr(batches[2], name)), name
    assert not torch.equal(batches[2].images, batches[1].images)
    assert not torch.equal(batches[2].images, other.batch(2).images)
    # two new ones, and one of two steps before, mirrored
    difference = batches[2].images[2].flip(-1).int() - batches[0].images[0].int()
    assert difference.abs().max() <= 1 and len(batches[2].images) == 3


@pytest.fixture
def quick(tmp_path, monkeypatch) -> tuple[str, ...]:
    """Options of a run with a network for images of 64 pixels; validation is left out."""
    smaller = {
        "image_size: 512": "image_size: 64",
        "window_spec: [8, 4, 32, 16]": "window_spec: [8, 4, 4, 2]",
        "embed_dim: 32": "embed_dim: 8",
        "[256, 128, 64, 32]": "[64, 32, 16, 8]",
        "d_model: 128": "d_model: 32",
        "num_pos_feats: 128": "num_pos_feats: 32",
    }
    text = training.CONFIG.read_text()
    for old, new in smaller.items():
        assert old in text
        text = text.replace(old, new)
    monkeypatch.setattr(training, "CONFIG", tmp_path / "small.yaml")
    training.CONFIG.write_text(text)
    assert build_sam2(training.CONFIG).image_size == 64
    monkeypatch.setattr(training, "validate", lambda *_: dict.fromkeys(training.SCORES, 0.5))
    monkeypatch.setattr(sam2_scenes, "AGAIN_AFTER", 2)
    return ("--images", "2", "--objects", "2")


def test_resumed_is_uninterrupted(quick, tmp_path, monkeypatch):
    through, stopped = tmp_path / "through", tmp_path / "stopped"
    options = (*quick, "--steps", "4", "--output")
    call(training, *options, str(through))
    interrupt_after(2, monkeypatch)
    call(training, *options, str(stopped))
    assert last(stopped)["step"] == 2
    call(training, *options, str(stopped), "--resume")
    assert last(through)["step"] == last(stopped)["step"] == 4
    assert any(k.startswith("/optimizer/muon") for k in tensors(last(through)))
    assert not different(through, stopped)


def test_minutes_init_export(quick, tmp_path):
    run = ("--output", str(tmp_path / "run"))
    assert call(training, *quick, *run, "--minutes", "0.01") == 0
    saved = last(tmp_path / "run")
    assert saved["step"] >= 1
    assert "0.5" in (tmp_path / "run" / "log.csv").read_text()

    file = tmp_path / "sam2.safetensors"
    assert call(training, *quick, *run, "--export", str(file)) == 0
    weights, average = load_file(file), saved["average"]["weights"]
    assert weights.keys() == average.keys()
    for name, value in weights.items():
        assert torch.equal(value, average[name].half()), name

    again = ("--output", str(tmp_path / "again"), "--init", str(file), "--steps", "1")
    assert call(training, *quick, *again, "--lr", "0") == 0
    model = last(tmp_path / "again")["model"]
    for name, value in weights.items():
        assert torch.equal(model[name].half(), value), name
