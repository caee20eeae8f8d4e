"""The program that trains LoftUp: both stages from the command line, and one-line refusals."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.weights import load_loftup, load_naf
from pipeline.result import encode_rle
from scripts.train_loftup import main


@pytest.fixture
def sa1b(tmp_path) -> Path:
    """Six images in SA-1B's format; one mask of one of them is bad."""
    folder = tmp_path / "sa1b"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(6):
        mask = np.zeros((90, 120), bool)
        mask[10 : 40 + i, 20:80] = True
        values = np.where(mask[..., None], [200, 30, 10 * i], rng.integers(0, 99, (90, 120, 3)))
        Image.fromarray(values.astype(np.uint8)).save(folder / f"sa_{i}.jpg")
        records = [{"segmentation": encode_rle(m)} for m in (mask, ~mask)]
        records[1]["segmentation"]["size"] = [90 - (i == 2), 120]
        (folder / f"sa_{i}.json").write_text(json.dumps({"annotations": records}))
    return folder


def test_both_stages_of_a_convolutional_network_on_a_folder(sa1b, tmp_path, capfd, caplog):
    backbone = "--backbone timm:test_efficientnet --random-weights --device cpu --side 64"
    common = [*backbone.split(), "--data", str(sa1b), "--validate-images", "1", "--batch", "2"]
    first, second = tmp_path / "one", tmp_path / "two"
    options = ["--steps", "2", "--picture-every", "2"]
    assert main([*common, *options, "--output", str(first)]) == 0
    assert "sa_2.json, mask 1: run lengths have size [89, 120], the image" in caplog.text
    start = str(first / "best.safetensors")
    options = "--steps 1 --stage 2 --anchor 0.5 --precision bf16 --min-side 0".split()
    assert main([*common, *options, "--init", start, "--output", str(second)]) == 0
    with (second / "log.csv").open() as stream:
        (row,) = csv.DictReader(stream)
    loss = 20 * float(row["affinity"]) + 0.5 * float(row["anchor"])
    assert float(row["loss"]) == pytest.approx(loss, rel=1e-3)
    settings = json.loads((second / "settings.json").read_text())
    assert settings["anchor"] == 0.5 and settings["lr"] == 1e-4
    assert settings["backbone"] == "timm:test_efficientnet"
    assert load_loftup(second / "best.safetensors").dim == 48
    assert {"curves.png", "pictures"} <= {path.name for path in first.iterdir()}

    file = tmp_path / "pytorch_model.bin"
    assert main(["--output", str(second), "--export", str(file)]) == 0
    assert torch.load(file, weights_only=True)["channelnorm.norm.weight"].shape == (48,)
    assert main([*common, "--steps", "9", "--output", str(first)]) == 2
    assert "holds a run: add --resume" in capfd.readouterr().err


def test_tensorboard(sa1b, tmp_path):
    pytest.importorskip("tensorboard", reason="optional: pip install tensorboard")
    options = "--backbone timm:test_efficientnet --random-weights --device cpu --side 64"
    few = ["--validate-images", "1", "--batch", "2", "--steps", "1", "--tensorboard"]
    assert main([*options.split(), *few, "--data", str(sa1b), "--output", str(tmp_path / "a")]) == 0
    assert any((tmp_path / "a" / "tensorboard").iterdir())


STEPS = ["--steps", "1", "--random-weights", "--device", "cpu"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--random-weights"], "--steps N or --minutes M"),
        (["--steps", "1", "--minutes", "1"], "one of the two"),
        (["--steps", "0"], "must be above 0"),
        ([*STEPS, "--stage", "2"], "add --init FILE"),
        ([*STEPS, "--stage", "3"], "invalid choice"),
        ([*STEPS, "--init", "/nowhere.pt"], "does not exist"),
        ([*STEPS, "--data", "/nowhere"], "give a folder of images"),
        ([*STEPS, "--labels", "x"], "add --data FOLDER"),
        ([*STEPS, "--segmenter", "slic"], "add --data, drop --labels"),
        ([*STEPS, "--segmenter", "slic", "--data", "/nowhere"], "give a folder of images"),
        ([*STEPS, "--side", "100"], "use for example --side 96"),
        ([*STEPS, "--alpha", "2"], "alpha must be between 0 and 1"),
        ([*STEPS, "--backbone", "resnet"], "unknown backbone 'resnet'"),
        (
            [*STEPS, "--backbone", "timm:test_resnet@7"],
            "no stage of stride 7; it has timm:test_res",
        ),
        ([*STEPS, "--attention", "blur"], "unknown attention"),
        ([*STEPS, "--checkpoint", "/nowhere.pt"], "exclude each other"),
        ([*STEPS, "--recipe", "tiny", "--window-side", "20"], "window_side must be a multiple"),
        ([*STEPS, "--device", "tpu"], "not available"),
        ([*STEPS, "--resume"], "drop --resume"),
        ([*STEPS, "--workers", "0"], "--workers must be at least 1"),
        (["--export", "x.bin"], "train first"),
    ],
)
def test_refusals_are_one_line(argv, message, tmp_path, capfd):
    argv = [*argv, "--output", str(tmp_path / "run")]
    try:
        status = main(argv)
    except SystemExit as stop:  # argparse
        status = stop.code
    error = capfd.readouterr().err
    assert status == 2 and message in error
    assert error.startswith("error: ") and error.count("\n") == 1
    assert not (tmp_path / "run" / "last.pt").exists()


def test_processes_stop_at_the_same_step(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["--minutes", "1", "--output", str(tmp_path)]) == 2
    assert "several processes need --steps" in capfd.readouterr().err


def test_naf_on_photographs_without_masks(tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    for i in range(3):
        values = np.random.default_rng(i).integers(0, 60, (70, 90, 3))
        values[20:50, 30:60] += 150
        Image.fromarray(values.astype(np.uint8)).save(folder / f"{i}.jpg")
    options = "--recipe photographs --backbone timm:test_vit --random-weights --device cpu"
    few = "--side 64 --width 16 --window-side 32 --steps 1 --validate-images 1 --segmenter slic"
    output = ["--data", str(folder), "--output", str(tmp_path / "run")]
    assert main([*options.split(), *few.split(), *output]) == 0
    assert load_naf(tmp_path / "run" / "best.safetensors").image_encoder.dim == 16
