"""Short runs of both stages: resumed equals uninterrupted, files that others can load."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from models.backbones.build import build_backbone
from models.weight_files import read_state_dict
from models.weights import load_loftup
from pipeline.evaluation.ranks import Ranks
from pipeline.training.loftup import judge
from pipeline.training.loftup.config import LoftUpConfig, get_recipe
from pipeline.training.loftup.pool import Pool, step_generator
from pipeline.training.loftup.samples import RenderedScenes, Sample
from pipeline.training.loftup.stage1 import FirstStage
from pipeline.training.loftup.stage2 import SecondStage
from pipeline.training.loftup.train import RunOptions, build_stage, export_best, train
from pipeline.training.loftup.validation import WAYS, Validator, principal_colours
from pipeline.world.scenes import load_world

from ..runs import different, interrupt_after, last, rows


class Squares:
    """A source of made-up samples."""

    name = "squares"

    def draw(self, rng: np.random.Generator, side: int) -> Sample:
        masks = np.arange(4).reshape(2, 2).repeat(side // 2, 0).repeat(side // 2, 1)
        image = rng.integers(0, 256, (4, 3))[masks] + rng.integers(-9, 9, (side, side, 3))
        return Sample(image.clip(0, 255).astype(np.uint8), masks)

    def held_out(self, count: int, side: int) -> list[Sample]:
        return [self.draw(np.random.default_rng([7, i]), side) for i in range(count)]


ALONE = Ranks(0, 1, torch.device("cpu"))
SMALL = {"side": 64, "batch": 2, "affinity_pixels": 64}
CONFIGS = {
    "paper 1": dataclasses.replace(get_recipe("paper", 1), **SMALL),
    "paper 2": dataclasses.replace(get_recipe("paper", 2), **SMALL, teacher_every=2),
    "tiny 1": dataclasses.replace(
        get_recipe("tiny", 1),
        **SMALL,
        mask=0.0,
        pool=4,
        local=False,
        freeze=0.5,
        window_side=16,
    ),
    "tiny 1, local": dataclasses.replace(
        get_recipe("tiny", 1), **SMALL, mask=0.0, pool=4, window_side=16, precision="fp32"
    ),
    "tiny 2": dataclasses.replace(
        get_recipe("tiny", 2), **SMALL, teacher_every=2, precision="fp32"
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_resumed_is_uninterrupted(name, backbone, tmp_path, monkeypatch):
    config = CONFIGS[name]
    init = tmp_path / "init.pt"
    torch.save(build_stage(config, backbone, None).student.state_dict(), init)
    if name != "paper 1":  # once is enough: curves take longer than the steps
        monkeypatch.setattr(judge, "draw_curves", lambda folder: None)
    common = {"steps": 4, "init": init, "validate_every": 2, "validate_images": 1, "log_every": 1}
    common["picture_every"] = 2
    through, stopped = tmp_path / "through", tmp_path / "stopped"
    args = (backbone, Squares(), ALONE)
    train(config, RunOptions(output=through, **common), *args)
    interrupt_after(2, monkeypatch)
    train(config, RunOptions(output=stopped, **common), *args)
    assert last(stopped)["step"] == 2
    assert len(rows(stopped / "log.csv")) == 2
    # A killed run may have logged steps after its last checkpoint.
    with (stopped / "log.csv").open("a") as stream:
        stream.write("2,1,0,0,0,0,0\n")
    with pytest.raises(FileExistsError, match="--resume"):
        train(config, RunOptions(output=stopped, **common), *args)
    train(config, RunOptions(output=stopped, resume=True, **common), *args)

    assert last(through)["optimizer"] and ("teacher" in last(through)) is (config.stage == 2)
    assert not different(through, stopped)
    for file in ("log.csv", "validation.csv"):
        assert rows(through / file) == rows(stopped / file)
    assert [r["done"] for r in rows(through / "validation.csv")] == ["0", "2", "4"]
    best = [read_state_dict(f / "best.safetensors") for f in (through, stopped)]
    assert all(torch.equal(best[0][k], best[1][k]) for k in best[0])
    picture = np.asarray(Image.open(through / "pictures" / "000002.png"))
    assert picture.shape == (64, 320, 3)
    assert name != "paper 1" or (through / "curves.png").stat().st_size > 5000
    assert all(np.isfinite([float(v) for v in r.values()]).all() for r in rows(through / "log.csv"))


def test_a_resumed_run_keeps_its_settings(backbone, tmp_path):
    config = CONFIGS["paper 1"]
    options = {"output": tmp_path, "steps": 1, "validate_images": 1}
    train(config, RunOptions(**options), backbone, Squares(), ALONE)
    other = dataclasses.replace(config, lr=1.0)
    with pytest.raises(ValueError, match=r"lr 0.001 \(now 1.0\)"):
        train(other, RunOptions(**options, resume=True), backbone, Squares(), ALONE)


def test_training_brings_the_output_to_the_target(backbone, tmp_path):
    config = dataclasses.replace(CONFIGS["paper 1"], lr=1e-2, batch=2)
    options = RunOptions(output=tmp_path, steps=16, validate_every=0, validate_images=2)
    measures = train(config, options, backbone, Squares(), ALONE)
    first = float(rows(tmp_path / "validation.csv")[0]["cosine"])
    assert measures["cosine"] > max(0.5, first + 0.3)


def test_best_weights_are_official_ones(backbone, tmp_path):
    config = CONFIGS["tiny 1"]
    options = RunOptions(output=tmp_path, steps=2, validate_images=1)
    train(config, options, backbone, Squares(), ALONE)
    best = load_loftup(tmp_path / "best.safetensors")
    assert {k.split(".")[0] for k in best.state_dict()} == {"upsampler", "channelnorm"}
    features, image = torch.randn(1, 8, 2, 3), torch.rand(1, 3, 32, 48)
    for suffix in ("bin", "safetensors"):
        export_best(tmp_path, tmp_path / f"loftup.{suffix}")
        loaded = load_loftup(tmp_path / f"loftup.{suffix}")
        assert torch.allclose(loaded(features, image), best(features, image), atol=2e-2)
    with pytest.raises(ValueError, match=r"use \.safetensors"):
        export_best(tmp_path, tmp_path / "loftup.txt")
    with pytest.raises(FileNotFoundError, match="train first"):
        export_best(tmp_path / "nothing", tmp_path / "loftup.bin")


def test_unused_frequencies_and_fixed_parts_stay(backbone, tmp_path):
    config = CONFIGS["tiny 1"]
    options = RunOptions(output=tmp_path, steps=2, validate_images=1)
    train(config, options, backbone, Squares(), ALONE)
    start = build_stage(config, backbone, None).student.state_dict()
    end = last(tmp_path)["model"]
    listened = end["upsampler.first_conv.1.weight"].abs().amax((0, 2, 3)) > 0
    waves = listened[:200].view(2, 20, 5)
    assert waves.all((0, 2)).tolist() == [True] * 11 + [False] * 9 and listened[200:].all()
    changed = {k for k in start if not torch.equal(start[k], end[k])}
    assert not any("channelnorm" in k or "fourier_feat" in k for k in changed)
    assert "upsampler.lr_pe.biases" in changed


def test_pool_gives_the_same_images_from_any_step_on(backbone):
    config = dataclasses.replace(CONFIGS["tiny 1"], fresh=1, pool=5)
    stage = build_stage(config, backbone, None)

    def images(first: int) -> list[torch.Tensor]:
        with (pool := Pool(Squares(), stage, config, rank=0, workers=2)):
            return [
                torch.stack([e.image for e in pool.batch(s, step_generator(1, 0, s))[1]])
                for s in range(first, 4)
            ]

    all_steps, later = images(0), images(2)
    assert all(torch.equal(a, b) for a, b in zip(all_steps[2:], later, strict=True))
    seen = {tuple(image.flatten().tolist()) for step in all_steps for image in step}
    assert len(seen) <= 8  # of 12: older images come again
    with (pool := Pool(Squares(), stage, config, rank=1, workers=1)):
        other = pool.batch(0, step_generator(1, 1, 0))[1]
    assert not torch.equal(other[0].image, all_steps[0][0])


@pytest.mark.parametrize(("corner", "step"), [(16, 8), (0, 16)])
def test_teacher_target_is_where_its_crop_lies(backbone, corner, step):
    config = dataclasses.replace(CONFIGS["paper 2"], alpha=0.0, enlarge=(2.0, 2.0), corner=corner)
    stage = build_stage(config, backbone, None)
    assert isinstance(stage, SecondStage) and stage.zoom == 2

    class Colours(torch.nn.Module):  # a teacher whose answer is the picture it is shown
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, features: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
            return image.float()

    stage._teacher = [Colours()]
    samples = [Squares().draw(np.random.default_rng(3), 128)]
    batch = stage.batch(samples, stage.examples(samples), np.random.default_rng(0))
    assert batch.target.shape == (2, 3, 32, 32) and batch.pixels.shape == (2, 64)
    student = F.avg_pool2d(torch.from_numpy(samples[0].image).permute(2, 0, 1).float(), 2)
    for target, (top, left) in zip(batch.target, batch.starts[0], strict=True):
        torch.testing.assert_close(target, student[:, top : top + 32, left : left + 32])
    assert {n % step for n in sum(batch.starts[0], ())} == {0}
    places = stage._corners(32)
    assert places == list(range(0, 33, step))


def test_zooms_are_those_of_whole_cells(backbone):
    config = dataclasses.replace(CONFIGS["paper 2"], side=224)
    assert build_stage(config, backbone, None).place_sides == [4, 5, 6, 7]
    with pytest.raises(ValueError, match="widen --enlarge"):
        build_stage(dataclasses.replace(config, enlarge=(2.1, 2.2)), backbone, None)


def test_teacher_follows_slowly(backbone):
    stage = build_stage(dataclasses.replace(CONFIGS["paper 2"], teacher_decay=0.75), backbone, None)
    name = "upsampler.final_conv.0.bias"
    with torch.no_grad():
        stage.teacher.state_dict()[name].fill_(1.0)
        stage.student.state_dict()[name].fill_(5.0)
    stage.after_step(1)
    assert stage.teacher.state_dict()[name][0] == 1
    stage.after_step(2)
    torch.testing.assert_close(stage.teacher.state_dict()[name][0], torch.tensor(2.0))


def test_anchor_can_be_off(backbone):
    for weight in (0.0, 1.0):
        stage = build_stage(dataclasses.replace(CONFIGS["paper 2"], anchor=weight), backbone, None)
        samples = [Squares().draw(np.random.default_rng(i), 256) for i in range(2)]
        terms = stage(stage.batch(samples, stage.examples(samples), np.random.default_rng(0)))
        assert terms["anchor"].requires_grad is (weight > 0) and terms["anchor"] > 0
        assert stage.loss(terms) == 20 * terms["affinity"] + weight * terms["anchor"]


def test_words_measure_a_clip(tmp_path):
    torch.manual_seed(0)
    clip = build_backbone("tiny", random_weights=True)
    config = dataclasses.replace(get_recipe("tiny", 1), **SMALL, pool=4)
    stage = build_stage(config, clip, None)
    assert isinstance(stage, FirstStage)
    world = load_world()
    source = RenderedScenes(world)
    samples = [source.draw(np.random.default_rng(i), 64) for i in range(2)]
    batch = stage.batch(samples, stage.examples(samples), np.random.default_rng(0))
    assert batch.target.shape == (4, 128, 32, 32)
    assert stage(batch)["mask"] > 0
    validator = Validator(stage, source, world, 2)
    measures = validator.measure(stage.student.eval())
    named = [name for way in WAYS for name in (way, f"{way}_edge")]
    assert list(measures) == ["cosine", "cosine_bicubic", *named]
    expected = (measures["restored"] + measures["restored_edge"]) / 2
    assert validator.score(measures) == expected
    folder = Validator(stage, Squares(), world, 2)  # scenes for the words, squares for the cosine
    assert len(folder.images) == 4
    assert folder.measure(stage.student.eval())["bilinear"] == measures["bilinear"]


def test_the_mask_term_needs_words(backbone):
    with pytest.raises(ValueError, match="add --mask 0"):
        build_stage(dataclasses.replace(CONFIGS["tiny 1"], mask=0.3), backbone, None)


def test_colours_are_principal_components():
    grid = torch.zeros(4, 2, 3)
    grid[2] = torch.tensor([[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]])  # one direction alone varies
    small, large = principal_colours([grid, F.interpolate(grid[None], (4, 6))[0]])
    assert large.shape == (4, 6, 3)
    np.testing.assert_array_equal(large, small.repeat(2, 0).repeat(2, 1))
    assert sorted({0, 255} & set(small[0, :, 0].tolist())) == [0, 255]
    assert 120 < small[0, 1, 0] < 135


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": 1.5}, "alpha must be between 0 and 1, got 1.5"),
        ({"optimizer": "sgd"}, "optimizer must be adamw or nadam or muon"),
        ({"pool": 7}, "fresh must be"),
        ({"pool": 4}, "pool must be 0 or at least the batch"),
        ({"enlarge": (3.0, 2.0)}, "enlarge must be"),
        ({"stage": 2, "windows": 2}, "windows must be 0 in stage 2"),
    ],
)
def test_settings_are_checked(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(LoftUpConfig(), **change)
    with pytest.raises(ValueError, match="valid: paper, released, photographs"):
        get_recipe("fast", 1)
