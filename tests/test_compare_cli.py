"""The comparing program as users run it: what it writes, what it refuses, what it says."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import models.networks
from compare_loftup_results import main
from models.presets import Preset
from models.weights import load_clip
from pipeline.app.options import SCENE
from pipeline.result import decode_rle
from pipeline.segmenter import Segmenter

ROOT = Path(__file__).parents[1]
PROGRAM = ROOT / "compare_loftup_results.py"

load_clip_once = functools.cache(load_clip)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def fast(monkeypatch, random_preset: Preset) -> None:
    """Small windows and random weights instead of the trained models."""
    plain = Segmenter.from_preset
    monkeypatch.setattr(
        Segmenter, "from_preset", lambda name, **options: plain(random_preset, **options)
    )


def assert_refused(argv: list[object], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, one line that holds `message`, nothing written."""

    def files() -> dict[Path, bytes | None]:
        return {p: p.read_bytes() if p.is_file() else None for p in Path.cwd().rglob("*")}

    before = files()
    try:
        code = main([str(word) for word in argv])
    except SystemExit as stop:  # argparse's way
        code = stop.code
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1
    assert message in err
    assert files() == before


def assert_outputs(picture: str, json_file: str, size: tuple[int, int]) -> dict:
    """Both files are whole; gives the JSON."""
    with Image.open(picture) as drawn:
        drawn.load()
        assert drawn.mode == "RGB" and min(drawn.size) > 400
    data = json.loads(Path(json_file).read_text(encoding="utf-8"))
    assert list(data["arms"]) == list(data["results"]) == ["bilinear", "loftup"]
    for arm, found in data["results"].items():
        metrics = data["arms"][arm]
        assert (found["image"]["height"], found["image"]["width"]) == size
        assert len(found["masks"]) == metrics["masks"] <= metrics["prompts"]
        assert metrics["prompts"] == found["settings"]["prompts"]
        assert metrics["seconds"] == found["timings"]
        assert all(decode_rle(m["segmentation"]).shape == size for m in found["masks"])
        for name, pixels in found["class_pixels"].items():
            percent = metrics["area"]["final"]["classes"][name]
            assert percent == pytest.approx(100 * pixels / (size[0] * size[1]))
    return data


def test_bundled_scene(here, capsys):
    words = ["person", "car", "bicycle", "tree", "building"]
    assert main(["--image", str(SCENE.path), "--vocabulary", *words]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert sorted(p.name for p in here.iterdir()) == ["comparison.json", "comparison.png"]
    data = assert_outputs("comparison.png", "comparison.json", (448, 672))
    bilinear, loftup = data["arms"].values()
    settings = [found["settings"] for found in data["results"].values()]
    assert ["loftup" in s["weights"] for s in settings] == [False, True]
    assert bilinear["masks"] > 5 and loftup["masks"] > 5 and loftup["prompt_reduction"] > 90
    assert bilinear["seconds"]["clip"] == loftup["seconds"]["clip"]
    assert bilinear["seconds"]["upsample"] < loftup["seconds"]["upsample"]
    # Most pixels are clear to both; LoftUp moves edges.
    for name, agreement in data["agreement"].items():
        assert 80 < agreement["pixel_agreement"] < 99.9, name
        assert 50 < agreement["mIoU"] < 99 and agreement["IoU"]["classes"]["car"] > 70

    *table, blank, last = out.splitlines()
    assert (blank, last) == ("", "-> comparison.png, comparison.json")
    assert all(len(line) < 80 for line in table)
    rows = [" ".join(line.split()) for line in table]
    assert f"prompts {bilinear['prompts']} {loftup['prompts']}" in rows
    assert f"masks {bilinear['masks']} {loftup['masks']}" in rows
    final = data["agreement"]["final"]
    assert f"final maps {final['pixel_agreement']:.1f} {final['mIoU']:.1f}" in rows
    assert [row.split()[0] for row in rows[-5:]] == words


@pytest.mark.parametrize("size", [(1, 90), (90, 1), (20, 20), (40, 75)])
def test_images_of_every_shape(size, here, capsys, fast):
    Image.open(SCENE.path).resize(size[::-1]).save("a.png")
    argv = ["--image", "a.png", "--min-confidence", "0", "--min-region-size", "1", "--background"]
    assert main([*argv, "--output", "new/b.jpg", "--save-json", "other/c.json"]) == 0
    out, err = capsys.readouterr()
    assert err == "" and out.endswith(f"-> {Path('new/b.jpg')}, {Path('other/c.json')}\n")
    data = assert_outputs("new/b.jpg", "other/c.json", size)
    for metrics in data["arms"].values():
        assert metrics["masks"] > 0 and metrics["area"]["dense"]["unnamed"] == 0
    assert data["results"]["loftup"]["settings"]["vocabulary"] == [[w] for w in SCENE.words]


def test_any_two_upsamplers(here, capsys, fast):
    Image.open(SCENE.path).resize((75, 40)).save("a.png")
    argv = ["--image", "a.png", "--min-confidence", "0", "--min-region-size", "1"]
    assert main([*argv, "--upsamplers", "jbu", "none"]) == 0
    out, err = capsys.readouterr()
    assert err == "" and out.split()[:2] == ["jbu", "none"] and "LoftUp" not in out
    data = json.loads(Path("comparison.json").read_text(encoding="utf-8"))
    assert list(data["arms"]) == list(data["results"]) == ["jbu", "none"]
    for arm, found in data["results"].items():
        assert (
            found["settings"]["upsampler"] == arm and "loftup" not in found["settings"]["weights"]
        )
    assert data["agreement"]["dense"]["pixel_agreement"] < 100
    with Image.open("comparison.png") as drawn:
        assert min(drawn.size) > 400


def test_nothing_found(here, capsys, fast):
    Image.new("RGB", (64, 48), (90, 160, 240)).save("sky.png")
    argv = ["--image", "sky.png", "--min-region-size", "3073", "--vocabulary", "猫", "dog"]
    assert main(argv) == 0
    assert "masks                                         0         0" in capsys.readouterr().out
    data = assert_outputs("comparison.png", "comparison.json", (48, 64))
    assert data["agreement"]["final"]["IoU"] == {
        "unnamed": 100, "classes": {"猫": None, "dog": None},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--image", "nowhere.jpg"], "image not found: 'nowhere.jpg'"),
        (["--image", "."], "is a folder"),
        (["--image", "text.jpg"], "is not an image"),
        (["--use-loftup"], "unrecognized arguments: --use-loftup"),
        (["--vocabulary", "cat", " , "], "blank word"),
        (["--vocabulary", "cat", "Cat"], "'Cat' is given twice"),
        (["--vocabulary", "@nowhere.txt"], "vocabulary file not found"),
        (["--preset", "huge"], "unknown preset 'huge'; valid: vit-b16, tiny"),
        (["--min-confidence", "2"], "min_confidence must be between 0 and 1, got 2.0"),
        (["--min-region-size", "0"], "min_region_size must be at least 1, got 0"),
        (["--upsamplers", "jbu", "jbu"], "--upsamplers jbu jbu: give two different ones"),
        (["--upsamplers", "jbu", "cubic"], "unknown upsampler 'cubic'; valid: none, bilinear"),
        (["--upsamplers", "jbu"], "argument --upsamplers: expected 2 arguments"),
        (
            ["--upsamplers", "jbu", "none", "--loftup-model", "a"],
            "needs --use-loftup",
        ),
        (["--anyup-model", "a.pth"], "--anyup-model needs --upsampler anyup"),
        (["--output", "out.pdf"], "its name must end in .png, .jpg, .jpeg, .webp"),
        (["--output", "folder.png"], "--output folder.png is a folder"),
        (["--output", "taken.png"], "--save-json taken.json is a folder"),
        (["--output", "out.png", "--save-json", "out.png"], "--save-json out.png is also --output"),
        (["--output", "text.jpg/out.png"], "text.jpg is not a folder"),
        (["--image", "scene.jpg", "--output", "scene.jpg"], "--output scene.jpg is also --image"),
    ],
)
def test_bad_input_is_refused_before_models_are_loaded(argv, message, here, capsys, monkeypatch):
    monkeypatch.setattr(Segmenter, "from_preset", None)
    (here / "text.jpg").write_text("no picture")
    (here / "scene.jpg").write_bytes(SCENE.path.read_bytes())
    (here / "folder.png").mkdir()
    (here / "taken.json").mkdir()
    assert_refused(argv, message, capsys)


def test_bad_models(here, capsys, monkeypatch):
    monkeypatch.setattr(models.networks, "load_clip", load_clip_once)
    assert_refused(["--device", "abacus"], "device 'abacus' is not available; here: ", capsys)
    assert_refused(["--checkpoint", "nowhere.pt"], "nowhere.pt does not exist", capsys)
    assert_refused(["--model-cfg", "sam9.yaml"], "Unknown SAM 2 configuration", capsys)


def test_a_loftup_that_is_missing_or_does_not_fit_is_an_error(here, capsys):
    # Never a comparison of bilinear with bilinear.
    save_file({"weight": torch.zeros(2, 3)}, "other.safetensors")
    for name, message in (
        ("nowhere.pt", "nowhere.pt does not exist"),
        ("other.safetensors", "other.safetensors is no LoftUp"),
        ("loftup_dinov2s", "loftup_dinov2s upsamples dinov2_vits14 features, not tiny-clip"),
    ):
        assert_refused(["--loftup-model", name], message, capsys)


def test_no_network(tmp_path):
    argv = [sys.executable, str(PROGRAM), "--image", str(SCENE.path), "--preset", "vit-b16"]
    environment = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=120, cwd=tmp_path,
        env=os.environ | environment,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: weights missing: ") and done.stderr.count("\n") == 1
    assert not (tmp_path / "comparison.png").exists()


def test_help():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(PROGRAM), "--help"],
        capture_output=True, text=True, timeout=60, env=os.environ | {"COLUMNS": "200"},
    )  # fmt: skip
    assert done.returncode == 0
    assert "the picture (default: comparison.png)" in done.stdout
    assert "--min-confidence" in done.stdout and "--use-loftup" not in done.stdout
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "pipeline.app.options" in imported
    assert not imported & {"torch", "open_clip", "numpy", "cv2"}  # help comes at once
