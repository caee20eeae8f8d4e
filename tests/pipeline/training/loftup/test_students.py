"""NAF and LoftUp's own last layers as students: windows, shares of masks, short runs."""

import dataclasses

import numpy as np
import pytest
import torch

from models.loftup.network import LoftUp
from models.weights import load_loftup, load_naf
from pipeline.training.loftup.config import LoftUpConfig, get_recipe
from pipeline.training.loftup.losses import share_loss, stack_shares
from pipeline.training.loftup.students import (
    NafStudent,
    build_student,
    start_naf_locally,
    upsample_student,
)
from pipeline.training.loftup.train import RunOptions, build_stage, train
from pipeline.training.loftup.validation import Validator

from ..runs import different, interrupt_after, rows
from .test_train import ALONE, SMALL, Squares

NAF = dataclasses.replace(
    get_recipe("photographs", 1), **SMALL, width=16, windows=2, window_side=16
)
LOFTUP = dataclasses.replace(NAF, network="loftup", local=False, shares=0.0)
STUDENTS = {
    "naf": NAF,
    "naf, both losses": dataclasses.replace(NAF, l2=1.0, windows=0),
    "mix": dataclasses.replace(LOFTUP, head="mix", shares=1.0),
    "residual": dataclasses.replace(LOFTUP, head="residual", l2=1.0),
}


@pytest.mark.parametrize("name", STUDENTS)
def test_windows_are_cut_from_the_whole(name, example):
    student = build_student(STUDENTS[name], 8).eval().requires_grad_(False)
    features, images = example.features[None], example.image[None]
    starts = [[(0, 0), (16, 32), (0, 16)]]
    with torch.no_grad():
        whole = student(features, images)[0]
        found, _ = upsample_student(student, features, images, starts, 16)
    cut = [whole[:, top:, left:][:, :16, :16] for top, left in starts[0]]
    torch.testing.assert_close(found, torch.stack(cut), atol=1e-5, rtol=1e-5)


def test_naf_begins_as_a_gaussian_of_half_a_patch():
    torch.manual_seed(0)
    student = NafStudent(4, 64)
    start_naf_locally(student.naf, 12)
    one = torch.zeros(1, 4, 12, 12)
    one[:, :, 5, 6] = 1.0
    image = torch.full((1, 3, 96, 96), 128, dtype=torch.uint8)
    found = student.naf(image.float() / 255, one)[0, :, 44, 4::8].detach()  # patches' centres
    expected = torch.exp(-((torch.arange(12.0) - 6) ** 2) / (2 * 0.5**2))
    expected = expected / expected.sum() / (1 + 2 * torch.exp(torch.tensor(-2.0)))
    torch.testing.assert_close(found, expected.expand(4, -1), atol=0.12, rtol=0)
    assert found.argmax(1).tolist() == [6] * 4


@pytest.mark.parametrize(("name", "heads"), [("naf", 4), ("mix", 1)])
def test_shares_are_mixed_as_features_are(name, heads, example):
    student = build_student(STUDENTS[name], 8).eval()
    features, images = example.features[None], example.image[None]
    given = student.channelnorm(features).unflatten(1, (heads, -1))[:, 0].detach()
    starts = [[(16, 0)]]
    output, mixed = upsample_student(student, features, images, starts, 16, given)
    expected = output.unflatten(1, (heads, -1))
    assert mixed.shape == (1, heads, 8 // heads, 16, 16)
    torch.testing.assert_close(mixed[:, 0], expected[:, 0])  # the first head had the same values
    assert torch.equal(mixed[:, 0], mixed[:, -1]) is (heads == 1)


def test_share_loss_by_hand(example):
    shares = stack_shares([example])
    assert shares.shape == (1, 3, 2, 3)
    torch.testing.assert_close(shares[0, 2], torch.tensor([[0.5, 0, 0], [0, 0, 0]]))
    starts = [[(0, 0), (16, 32)]]  # half thing, half sky; grass with a hole
    mixed = torch.zeros(2, 1, 3, 16, 16)
    mixed[0, 0, 2, :, 8:] = 0.5
    mixed[0, 0, 0, :, :8] = 0.25
    mixed[1, 0, 1] = 1.0
    counted = np.array([128, 128, 16 * 16 - 64])
    expected = (np.log([2.0, 4.0, 1.0]) * counted).sum() / counted.sum()
    assert share_loss(mixed, [example], starts).item() == pytest.approx(expected, rel=1e-5)


def test_what_cannot_be_is_refused(backbone):
    with pytest.raises(ValueError, match="shares must be 0 but for NAF and head mix"):
        LoftUpConfig(shares=1.0)
    with pytest.raises(ValueError, match="head must be projection for NAF"):
        dataclasses.replace(NAF, head="mix")
    with pytest.raises(ValueError, match="width must be a positive multiple of 16, got 24"):
        dataclasses.replace(NAF, width=24)
    with pytest.raises(ValueError, match="local must be off for LoftUp with another head"):
        LoftUpConfig(local=True, freeze=0.0, head="mix")
    with pytest.raises(ValueError, match="multiple of 4 channels, the backbone has 6"):
        build_stage(NAF, dataclasses.replace(backbone, dim=6), None)


@pytest.mark.parametrize("name", ["naf, both losses", "mix", "residual"])
def test_resumed_is_uninterrupted_and_the_file_loads(name, backbone, tmp_path, monkeypatch):
    config = STUDENTS[name]
    common = {"steps": 4, "validate_every": 0, "validate_images": 1, "log_every": 1}
    through, stopped = tmp_path / "through", tmp_path / "stopped"
    args = (backbone, Squares(), ALONE)
    train(config, RunOptions(output=through, **common), *args)
    interrupt_after(2, monkeypatch)
    train(config, RunOptions(output=stopped, **common), *args)
    train(config, RunOptions(output=stopped, resume=True, **common), *args)
    assert not different(through, stopped)
    assert rows(through / "log.csv") == rows(stopped / "log.csv")
    best = through / "best.safetensors"
    if name.startswith("naf"):
        assert load_naf(best).image_encoder.dim == 16
    else:
        loaded = load_loftup(best)
        assert isinstance(loaded, LoftUp) and loaded.upsampler.head is not None
    second = dataclasses.replace(config, stage=2, shares=0.0, windows=0, l2=1.0)
    assert build_stage(second, backbone, best).zoom >= 2  # stage 2 starts from it


def test_shares_teach_where_masks_end(backbone, tmp_path):
    config = dataclasses.replace(NAF, lr=1e-2, batch=4, local=False)
    options = RunOptions(output=tmp_path, steps=25, validate_every=0, validate_images=1)
    measures = train(config, options, backbone, Squares(), ALONE)
    first, last = (float(row["shares"]) for row in rows(tmp_path / "validation.csv"))
    assert last < 0.95 * first
    assert Validator.score(None, measures) == -measures["shares"]  # type: ignore[arg-type]
