"""The program as users run it, also when it is killed or shared by processes.

Scoring and plotting the same predictions again would take most of the time: plots are drawn once,
and where processes are wanted they are copies of this one, with the models that it has loaded.
"""

import csv
import functools
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import models.networks
import pipeline.evaluation.report.outputs
from benchmarks.voc import ARMS, main
from pipeline.datasets.voc import CLASSES
from pipeline.evaluation.arms import parse_arms
from pipeline.files.label_png import read_index_png, write_index_png
from pipeline.world.scenes import VOC_NOUNS, load_world, render_scene
from tests.processes import launcher_settings, start_copy

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "benchmarks" / "voc.py"
# LoftUp takes seconds per image on a CPU; none of what is tested here depends on it.
NAMES = ("bilinear", "bilinear+sam2", "oracle-points")
SIZE = (100, 140)
# Whoever commits meanwhile, results stay the same; and a process has the one thread it uses.
ENVIRONMENT = {"GIT_DIR": str(ROOT / "nowhere"), "OMP_NUM_THREADS": "1"}


load_once = {
    name: functools.cache(getattr(models.networks, name)) for name in ("load_clip", "load_sam2")
}


def prepare(patch: pytest.MonkeyPatch) -> None:
    """The subprocesses' environment here as well; models are loaded once."""
    for name, value in ENVIRONMENT.items():
        patch.setenv(name, value)
    for name, load in load_once.items():
        patch.setattr(models.networks, name, load)


@pytest.fixture(autouse=True)
def settings(monkeypatch):
    prepare(monkeypatch)
    monkeypatch.setattr(pipeline.evaluation.report.outputs, "save_plots", lambda *_: [])
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Five rendered scenes of 100×140 pixels."""
    root = tmp_path_factory.mktemp("data") / "VOC2012"
    for folder in ("JPEGImages", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    ids = [f"scene_{index}" for index in range(5)]
    label_of = {noun: CLASSES.index(noun) + 1 for noun in VOC_NOUNS}
    for index, name in enumerate(ids):
        scene = render_scene(
            load_world(), np.random.default_rng([5, index]), size=SIZE, objects=(1, 3),
            nouns=VOC_NOUNS, side=(40.0, 90.0),
        )  # fmt: skip
        Image.fromarray(scene.image).save(root / "JPEGImages" / f"{name}.jpg", quality=95)
        labels = scene.label_map(label_of).astype(np.uint8)
        write_index_png(root / "SegmentationClass" / f"{name}.png", labels)
        write_index_png(root / "SegmentationObject" / f"{name}.png", np.uint8(scene.instances))
    (root / "ImageSets/Segmentation/val.txt").write_text("\n".join(ids))
    return root


@pytest.fixture
def data(made, tmp_path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(made, tmp_path / "VOC2012"))


def options(root: Path, output: Path, *more: object, arms: tuple[str, ...] = NAMES) -> list[str]:
    fixed = ["--preset", "tiny", "--protocol", "rendered-voc", "--device", "cpu"]
    words = ["--root", root, "--output", output, *fixed, "--resamples", 50, *more, "--arms", *arms]
    return [str(word) for word in words]


@pytest.fixture(scope="module")
def finished(made, tmp_path_factory) -> Path:
    """The output of a run that nothing interrupted, with its plots."""
    output = tmp_path_factory.mktemp("made") / "out"
    with pytest.MonkeyPatch.context() as patch:
        prepare(patch)
        assert main(options(made, output)) == 0
    return output


def files(folder: Path, *, without: str | None = None) -> dict[str, bytes]:
    """Contents by name; those below the folder `without` are left out."""
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and p.relative_to(folder).parts[0] != without
    }


def assert_same_results(output: Path, expected: Path) -> None:
    """Results and predictions, bit by bit; times may differ, other files but plots not."""
    found, wanted = (files(folder, without="plots") for folder in (output, expected))
    assert found.keys() == wanted.keys()
    for name in wanted:
        if name in ("results.json", "images.csv") or name.startswith("predictions/"):
            if name.endswith("settings.json") or not name.endswith(".json"):
                assert found[name] == wanted[name], name
    assert found["results.json"] == wanted["results.json"]


def start(*argv: str, launcher: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """The program as a file, by an interpreter of its own."""
    return subprocess.Popen(
        [sys.executable, *launcher, str(PROGRAM), *argv],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | ENVIRONMENT,
    )  # fmt: skip


def test_what_a_run_gives(finished, made, capsys, tmp_path):
    output = Path(shutil.copytree(finished, tmp_path / "out"))
    assert main(options(made, output)) == 0  # once more: nothing to predict
    out, err = capsys.readouterr()
    assert err == "" and out.endswith(f"wrote {output}\n")
    assert (output / "report.md").read_text(encoding="utf-8") in out
    assert_same_results(output, finished)
    for name, content in files(finished / "predictions").items():
        assert (output / "predictions" / name).read_bytes() == content
    results = json.loads((output / "results.json").read_text(encoding="utf-8"))
    counts = {"listed": 5, "asked": 5, "scored": 5, "official": 1449, "failed": []}
    assert results["images"] == counts
    assert list(results["arms"]) == list(NAMES) and len(results["differences"]) == 3
    drawn = {path.name for path in (finished / "plots").iterdir()}
    assert {"arms.png", "classes.png", "sizes.png", "times.png"} <= drawn
    settings = results["settings"]
    assert settings["preset"] == "tiny" and settings["baseline"] == "bilinear"
    assert settings["root"] == str(made) and settings["resamples"] == 50
    assert settings["threads"] == 1 and settings["protocol"]["name"] == "rendered-voc"
    arms = results["arms"]
    # On such small pictures they find little, but the bound is far above.
    assert 5 < arms["bilinear"]["mIoU"] < arms["oracle-points"]["mIoU"] <= 100
    assert arms["oracle-points"]["prompts"]["points_on_class"] == 100
    assert arms["bilinear"]["sizes"]["32² to 96²"]["objects"] > 0
    rows = list(csv.DictReader(io.StringIO((output / "images.csv").read_text())))
    assert len(rows) == 15
    for arm in NAMES:
        assert len(list((output / "predictions" / arm).glob("*.png"))) == 5
        assert read_index_png(output / "predictions" / arm / "scene_0.png").shape == SIZE


def test_scored_alone(finished, made, tmp_path, capsys):
    output = tmp_path / "out"
    shutil.copytree(finished / "predictions", output / "predictions")
    assert main(options(made, output, "--score-only")) == 0
    assert_same_results(output, finished)
    # Other numbers come from the predictions that are there.
    write_index_png(output / "predictions/bilinear/scene_0.png", np.zeros(SIZE, np.uint8))
    assert main(options(made, output, "--score-only", "--min-confidence", 0.1)) == 0
    assert (output / "images.csv").read_bytes() != (finished / "images.csv").read_bytes()
    # The predictions' own settings are told, whatever is asked for now.
    settings = json.loads((output / "results.json").read_text())["settings"]
    assert settings["arms"]["bilinear+sam2"]["final"]["min_confidence"] == 0.7


def test_only_some_images_and_other_arms(finished, made, tmp_path, capsys):
    output = Path(shutil.copytree(finished, tmp_path / "out"))
    argv = options(made, output, "--limit", 2, "--baseline", "none", arms=("bilinear", "none"))
    assert main(argv) == 0
    results = json.loads((output / "results.json").read_text())
    assert results["images"]["listed"] == 5 and results["images"]["scored"] == 2
    assert list(results["differences"]) == ["none - bilinear"]
    assert results["settings"]["baseline"] == "none" and results["settings"]["limit"] == 2
    assert len(list((output / "predictions/none").glob("*.png"))) == 2
    for name, content in files(finished / "predictions").items():
        assert (output / "predictions" / name).read_bytes() == content


def test_damaged_files(data, tmp_path, capsys):
    image, labels = data / "JPEGImages", data / "SegmentationClass"
    (image / "scene_0.jpg").write_bytes((image / "scene_0.jpg").read_bytes()[:3000])
    (image / "scene_1.jpg").unlink()
    (labels / "scene_2.png").write_bytes(b"\x89PNG")
    write_index_png(labels / "scene_3.png", np.zeros((140, 100), np.uint8))
    output = tmp_path / "out"
    for more in ((), ("--score-only",)):
        assert main(options(data, output, *more, arms=("bilinear", "none"))) == 1
        err = capsys.readouterr().err
        told = [line for line in err.splitlines() if line.startswith("not scored: ")]
        assert len(told) == 4
        for number, (line, message) in enumerate(
            zip(told, ("truncated", "scene_1.jpg", "scene_2.png", "140×100"), strict=True)
        ):
            assert line.startswith(f"not scored: scene_{number}: ") and message in line
        results = json.loads((output / "results.json").read_text(encoding="utf-8"))
        assert results["images"]["scored"] == 1 and results["images"]["asked"] == 5
        failed = results["images"]["failed"]
        assert [f"not scored: {f['id']}: {f['error']}" for f in failed] == told
        rows = csv.DictReader(io.StringIO((output / "images.csv").read_text()))
        assert {row["id"] for row in rows} == {"scene_4"}
        assert "scene_2" in (output / "report.md").read_text(encoding="utf-8")


def test_all_damaged(data, tmp_path, capsys):
    for path in (data / "JPEGImages").iterdir():
        path.write_bytes(path.read_bytes()[:3000])
    assert main(options(data, tmp_path / "out", arms=("bilinear",))) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: none of 5 images can be read; scene_0: ")
    assert not (tmp_path / "out" / "results.json").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--arms", "bilinear", "loftdown"], "unknown arm 'loftdown'"),
        (["--arms", "bilinear", "bilinear"], "arm 'bilinear' is given twice"),
        (["--arms", "bilinear+pole"], "add +sam2"),
        (["--arms"], "expected at least one argument"),
        (["--baseline", "none"], "--baseline 'none' is none of the arms bilinear"),
        (["--protocol", "open"], "does not name the classes of this data set; valid: scl"),
        (["--protocol", "voc"], "unknown protocol 'voc'; valid: sclip-voc21, "),
        (["--preset", "huge"], "unknown preset 'huge'; valid: vit-b16, tiny"),
        (["--root", "nowhere"], "VOC folder not found: 'nowhere'"),
        (["--root", "."], "is not a VOC folder: no JPEGImages and no SegmentationClass"),
        (["--split", "test"], "no split 'test'"),
        (["--split", "mine.txt"], "list of images not found: 'mine.txt'"),
        (["--limit", "0"], "limit must be at least 1 image, got 0"),
        (["--limit", "few"], "invalid int value: 'few'"),
        (["--threads", "0"], "--threads must be at least 1, got 0"),
        (["--resamples", "-1"], "--resamples must be at least 1, got -1"),
        (["--device", "abacus"], "device 'abacus' is not available"),
        (["--min-confidence", "2"], "min_confidence must be between 0 and 1, got 2.0"),
        (["--loftup-model", "nowhere.pt", "--arms", "loftup"], "nowhere.pt"),
        (["--checkpoint", "nowhere.pt", "--arms", "oracle-points"], "nowhere.pt does not exist"),
        (["--model-cfg", "sam9.yaml", "--arms", "none+sam2"], "Unknown SAM 2 configuration"),
        (["--output", "file"], "file"),
        (["--score-only"], "no predictions of arm 'bilinear' in out/predictions: run again"),
        (["--colour"], "unrecognized arguments: --colour"),
    ],
)
def test_bad_arguments(argv, message, made, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    before = files(tmp_path)
    try:  # argparse takes the last of options given twice
        code = main([*options(made, Path("out"), arms=("bilinear",)), *argv])
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    assert code == 2 and out == ""
    assert err.startswith("error: ") and err.count("\n") == 1 and len(err) < 700
    assert message in err
    assert files(tmp_path) == before


def test_other_settings_are_refused(finished, made, tmp_path, capsys):
    output = Path(shutil.copytree(finished, tmp_path / "out"))
    before = files(output)
    assert main(options(made, output, "--min-confidence", 0.6)) == 2
    err = capsys.readouterr().err
    assert "(min_confidence: 0.7, now 0.6)" in err and err.count("\n") == 1
    assert files(output) == before
    argv = options(made, output, "--min-confidence", 0.6, "--overwrite", arms=("bilinear+sam2",))
    assert main(argv) == 0
    kept = "predictions/bilinear/scene_0.json"
    assert files(output)[kept] == before[kept]


def test_defaults(capsys):
    assert len(parse_arms(ARMS)) == len(ARMS)
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "rendered-voc without --root" in text and "--min-confidence" in text
    out, err = start("--help").communicate()  # it is also found as a file
    assert "--score-only" in out and err == ""


def killed_once(argv: list[str], output: Path, chance: random.Random) -> int:
    """Start, SIGKILL soon after a few new predictions; gives how many there are."""
    pattern = "predictions/*/*.png"
    enough = len(list(output.glob(pattern))) + chance.randint(1, 3)
    process = start_copy(main, argv, out=output.with_suffix(".txt"))
    while len(list(output.glob(pattern))) < enough:
        assert process.is_alive(), process.exitcode
        time.sleep(0.005)
    time.sleep(chance.uniform(0, 0.05))
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL  # before it came to its end
    return len(list(output.glob(pattern)))


def test_killed_and_continued(finished, made, tmp_path, capsys):
    output, chance = tmp_path / "out", random.Random(1)
    argv = options(made, output)
    counts = [killed_once(argv, output, chance) for _ in range(2)]
    assert 0 < counts[0] < counts[1] < 15
    (output / "predictions" / "bilinear" / ".0123.tmp").write_bytes(b"half")
    assert main(argv) == 0
    assert_same_results(output, finished)


@pytest.mark.slow
def test_killed_ten_times(made, tmp_path, capsys):
    chance = random.Random(2)
    root = Path(shutil.copytree(made, tmp_path / "VOC2012"))
    ids = []
    for copy in range(6):
        for index in range(5):
            ids.append(f"scene_{copy}_{index}")
            for folder, end in (
                ("JPEGImages", "jpg"), ("SegmentationClass", "png"), ("SegmentationObject", "png")
            ):  # fmt: skip
                source = made / folder / f"scene_{index}.{end}"
                shutil.copy(source, root / folder / f"{ids[-1]}.{end}")
    (root / "ImageSets/Segmentation/val.txt").write_text("\n".join(ids))
    output, expected = tmp_path / "out", tmp_path / "expected"
    argv = options(root, output)
    counts = [killed_once(argv, output, chance) for _ in range(10)]
    assert counts == sorted(set(counts)) and counts[-1] < 90
    process = start(*argv)
    process.communicate()
    assert process.returncode == 0
    assert main(options(root, expected)) == 0
    assert_same_results(output, expected)


def test_two_processes(finished, made, tmp_path):
    output, printed = tmp_path / "out", [tmp_path / f"{rank}.txt" for rank in range(2)]
    processes = [
        start_copy(main, options(made, output), out=out, environment=environment)
        for out, environment in zip(printed, launcher_settings(2), strict=True)
    ]
    for process in processes:
        process.join(300)
        assert process.exitcode == 0
    assert printed[0].read_text().endswith(f"wrote {output}\n") and printed[1].read_text() == ""
    assert_same_results(output, finished)
    timings = json.loads((output / "timings.json").read_text())
    assert timings["machine"]["processes"] == 2


@pytest.mark.slow
def test_torchrun(finished, made, tmp_path):
    output = tmp_path / "out"
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    process = start(*options(made, output), launcher=launcher)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert out.count("wrote ") == 1
    assert_same_results(output, finished)
