"""The program on other data sets than VOC (see test_voc for all else it does), and suites."""

import json
from pathlib import Path

import pytest
import torch

import benchmarks.segmentation as segmentation
import pipeline.evaluation.report.outputs
from benchmarks.segmentation import main
from models import published
from pipeline.datasets import open_dataset, render_dataset
from pipeline.evaluation.report.suite_table import Cell, suite_table
from pipeline.evaluation.score import scoring_protocol
from pipeline.evaluation.suite import plan


@pytest.fixture(autouse=True)
def own_folder(monkeypatch, tmp_path):
    """Scenes and results go to a folder of the test."""
    monkeypatch.setattr(segmentation, "ROOT", tmp_path)
    monkeypatch.setattr(pipeline.evaluation.report.outputs, "save_plots", lambda *_: [])
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


QUICK = ["--scenes", "1", "--resamples", "20", "--device", "cpu"]


def test_one_data_set_offline(tmp_path, capsys):
    assert main(["--dataset", "context60", *QUICK, "--arms", "bilinear"]) == 0
    output = tmp_path / "outputs/segmentation/context60_tiny_rendered-context60_val"
    out, _ = capsys.readouterr()
    assert out.startswith("# context60 benchmark: rendered-context60")
    assert out.endswith(f"wrote {output}\n")
    results = json.loads((output / "results.json").read_text())
    assert results["settings"]["dataset"] == "context60" and results["published"] == []
    assert len(results["labels"]) == 60 and results["arms"]["bilinear"]["mIoU"] > 0
    # The same scenes without background: their labels 0 are not scored.
    (scenes,) = (tmp_path / "outputs/cache").iterdir()
    assert scenes.name == "rendered_context_1_7"
    protocol = scoring_protocol("rendered-context59", open_dataset("context59", scenes).labels)
    assert protocol.background == ()


def test_suite_offline_goes_on(tmp_path, capsys):
    argv = ["--suite", "published", *QUICK, "--methods", "sclip", "--upsamplers", "bilinear",
            "guided", "--datasets", "voc21", "voc20"]  # fmt: skip
    assert main(argv) == 0
    out, _ = capsys.readouterr()
    output = tmp_path / "outputs/segmentation/published_tiny"
    cells = json.loads((output / "suite.json").read_text())["cells"]
    assert [(c["dataset"], c["upsampler"]) for c in cells] == [
        ("voc21", "bilinear"), ("voc21", "guided"),
        ("voc20", "bilinear"), ("voc20", "guided"),
    ]  # fmt: skip
    assert all(c["miou"] > 0 and c["images"] == 1 and not c["why"] for c in cells)
    row = f"| sclip | guided | {cells[1]['miou']:.2f} | {cells[3]['miou']:.2f} |"
    assert row in out and "Rendered scenes stand in" in out and "published |" not in out
    # Again: nothing is predicted or scored; what a lost prediction decides is.
    names = ("predictions/bilinear/rendered_7_000001.png", "report.md")
    lost, report = (output / "voc21_sclip" / name for name in names)
    kept = output / "voc20_sclip/report.md"
    before = [path.stat().st_mtime_ns for path in (lost, report, kept)]
    assert main(argv) == 0
    assert [path.stat().st_mtime_ns for path in (lost, report, kept)] == before
    lost.unlink()
    assert main(argv) == 0
    again = [path.stat().st_mtime_ns for path in (lost, report, kept)]
    assert again[0] > before[0] and again[1] > before[1] and again[2] == before[2]
    assert json.loads((output / "suite.json").read_text())["cells"] == cells


def test_what_is_missing_is_said(tmp_path, capsys):
    data = tmp_path / "data"
    render_dataset("ade20k", data / "ade20k", images=1, seed=7)
    argv = ["--suite", "published", "--root", str(data), "--preset", "tiny", *QUICK, "--methods",
            "sclip", "--upsamplers", "bilinear", "--datasets", "ade20k", "cityscapes"]  # fmt: skip
    assert main(argv) == 2
    out, err = capsys.readouterr()
    # Rendered scenes have other classes than the protocol's words.
    assert "protocol 'sclip-ade20k' does not name the classes of this data set" in out
    assert "cityscapes not found in" in out
    assert "| sclip | bilinear, published | 16.45 | 32.34 | 24.40 |" in out
    assert err.splitlines()[-1].startswith("error: nothing could be measured; first: protocol ")


def test_table():
    common = {"method": "sclip", "upsampler": "bilinear", "arm": "bilinear"}
    cells = [
        Cell(**common, dataset="voc20", miou=80.0, images=1449, published=81.54, off=True),
        Cell(**common, dataset="ade20k", why="ade20k not found", published=16.45),
    ]
    text = suite_table(cells, is_rendered=False)
    assert "| sclip | bilinear | 80.00* | – | – |" in text
    assert "| sclip | bilinear, published | 81.54 | 16.45 | 49.00 |" in text
    assert "- ade20k not found (ade20k sclip bilinear)" in text
    assert "further from the published figure" in text and "voc20 1449" in text


def test_plan():
    jobs = plan(published.METHODS, published.NAMES, ["bilinear"])
    assert len(jobs) == 40 and jobs[0].arms == {"bilinear": "bilinear"}
    assert {job.arms["bilinear"] for job in jobs} == {
        "bilinear", "bilinear+naclip", "bilinear+clearclip", "bilinear+proxy", "bilinear+corr",
    }  # fmt: skip
    for bad, message in (
        ((["sclop"], ["voc20"], ["none"]), "unknown method 'sclop'; valid: sclip, naclip"),
        ((["sclip"], ["voc"], ["none"]), "unknown data set 'voc'; valid: voc21, voc20"),
        ((["sclip"], ["voc20"], ["nine"]), "unknown arm 'nine'"),
    ):
        with pytest.raises(ValueError, match=message):
            plan(*bad)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "give --dataset (voc21, voc20, context60"),
        (["--dataset", "ade20k", "--suite", "published"], "or --suite published"),
        (["--suite", "all"], "unknown suite 'all'; valid: published"),
        (["--dataset", "ade"], "unknown data set 'ade'; valid: voc21"),
        (["--dataset", "ade20k", "--methods", "sclip"], "--methods is for --suite"),
        (["--suite", "published", "--arms", "none"], "--arms is not for --suite"),
        (["--suite", "published", "--score-only"], "--score-only is not for --suite"),
        (["--suite", "published", "--root", "nowhere"], "folder of data sets not found: 'nowhere'"),
        (["--suite", "published", "--datasets", "ade"], "unknown data set 'ade'"),
        (["--dataset", "ade20k", "--root", "nowhere"], "folder of ADE20K-150 not found"),
        (["--dataset", "ade20k", "--scenes", "0"], "--scenes must be at least 1, got 0"),
        (
            ["--dataset", "ade20k", "--arms", "bilinear", "bilinear+proxy", "--proxy-model", "x"],
            "--proxy-model needs a second network other than sam2",
        ),  # the tiny models' is
        (
            ["--suite", "published", "--methods", "naclip", "--proxy-upsampler-model", "x"],
            "--proxy-upsampler-model needs a second network",
        ),
        (
            ["--dataset", "ade20k", "--arms", "bilinear+proxy_scale=8"],
            "the dense method does not use proxy_scale",
        ),
        (["--dataset", "ade20k", "--protocol", "sclop"], "unknown protocol 'sclop'"),
    ],
)
def test_bad_arguments(argv, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        code = main(argv)
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    assert code == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1
    assert message in err and not list(Path().iterdir())
