"""The files of a benchmark, from predictions made by hand."""

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets.voc import IGNORE, LABELS, VocDataset
from pipeline.evaluation.report.outputs import commit, readable_json, write_outputs
from pipeline.result import encode_rle

from ...datasets.voc_folders import RANDOM_PROTOCOL, blocks, cut_short, write_prediction, write_voc

TRUTH = {
    "a": blocks((48, 70), (12, 5, 5, 40, 30)),
    "b": blocks((64, 50), (10, 20, 10, 60, 40), (IGNORE, 18, 10, 20, 40)),
    "void": np.full((48, 60), IGNORE, np.uint8),
}
ARMS = ["bilinear", "loftup", "twin", "loftup+sam2"]
SETTINGS = {"root": "VOC2012", "split": "val", "limit": None}


def record_settings(folder: Path, arm: str, **changes: object) -> None:
    settings = {
        "preset": "random", "protocol": dataclasses.asdict(RANDOM_PROTOCOL),
        "weights": {"clip": "0"}, "device": "cpu", "threads": 1, "code": "1",
        "versions": {"python": "3.11"}, "arm": {"dense": {}, "final": None},
    } | changes  # fmt: skip
    (folder / arm / "settings.json").write_text(json.dumps(settings))


@pytest.fixture
def dataset(tmp_path) -> VocDataset:
    objects = {name: (truth % IGNORE > 0).astype(np.uint8) for name, truth in TRUTH.items()}
    return write_voc(tmp_path / "VOC2012", TRUTH, objects)


@pytest.fixture
def output(tmp_path) -> Path:
    """LoftUp is right but for what SAM 2 does not see; the twin is as bilinear is."""
    for name, truth in TRUTH.items():
        right = truth % IGNORE
        coarse = np.roll(right, 4, axis=1)
        masks = [
            {"label": 12, "score": 0.8, "source": "sam2", "points": [[10, 10]],
             "segmentation": encode_rle(right == 12)}
        ]  # fmt: skip
        for arm, labels, prompts in (
            ("bilinear", coarse, {}), ("loftup", right, {}), ("twin", coarse, {}),
            ("loftup+sam2", np.zeros_like(right), {"prompts": 1, "masks": masks}),
        ):  # fmt: skip
            write_prediction(tmp_path / "out/predictions", arm, name, labels, **prompts)
    for arm in ARMS:
        record_settings(tmp_path / "out/predictions", arm)
    return tmp_path / "out"


def write(dataset: VocDataset, output: Path, arms=ARMS, failed=(), **changes) -> dict:
    settings = {"baseline": "bilinear", "resamples": 20, "settings": SETTINGS} | changes
    return write_outputs(dataset, arms, output, failed, **settings)


def test_all_files(dataset, output):
    data = write(dataset, output)
    names = {str(p.relative_to(output)) for p in output.rglob("*") if p.is_file()}
    assert {n for n in names if "/" not in n} == {
        "results.json", "timings.json", "images.csv", "report.md"
    }  # fmt: skip
    plots = {n for n in names if n.startswith("plots/")}
    assert {"plots/images_loftup.png", "plots/images_loftup+sam2.png"} < plots
    assert "plots/images_twin.png" not in plots  # nothing to see
    for name in plots:
        with Image.open(output / name) as picture:
            picture.load()
            assert min(picture.size) > 100

    assert json.loads((output / "results.json").read_text(encoding="utf-8")) == data
    assert list(data["arms"]) == ARMS and data["labels"] == list(LABELS)
    assert (
        data["settings"].items() >= (SETTINGS | {"baseline": "bilinear", "resamples": 20}).items()
    )
    assert data["settings"]["protocol"]["name"] == "random-voc" and data["settings"]["threads"] == 1
    assert data["settings"]["weights"] == {"clip": "0"} and data["versions"] == {"python": "3.11"}
    assert set(data["settings"]["arms"]) == set(ARMS)
    assert data["images"] == {"listed": 3, "asked": 3, "scored": 3, "official": 1449, "failed": []}
    assert data["arms"]["loftup"]["mIoU"] == 100 > data["arms"]["bilinear"]["mIoU"]
    assert data["arms"]["twin"] == data["arms"]["bilinear"]
    assert ("prompts" in data["arms"]["loftup+sam2"]) and "prompts" not in data["arms"]["loftup"]
    assert len(data["differences"]) == 6
    assert data["differences"]["twin - bilinear"]["mIoU"] == dict.fromkeys(
        ("difference", "low", "high"), 0
    )
    timings = json.loads((output / "timings.json").read_text())
    stage = dict.fromkeys(("median", "q25", "q75", "mean"), 0.5)
    assert timings["arms"] == {arm: {"clip": stage} for arm in ARMS}
    assert "processes" not in timings["machine"]  # nobody said how many made them
    rows = list(csv.DictReader((output / "images.csv").open()))
    assert len(rows) == 3 * len(ARMS) and [row["arm"] for row in rows[:4]] == ARMS
    assert {row["mIoU"] for row in rows if row["id"] == "void"} == {""}
    report = (output / "report.md").read_text(encoding="utf-8")
    assert "loftup+sam2" in report and "nan" not in report.lower()


def test_the_same_predictions_give_the_same_results(dataset, output, monkeypatch, tmp_path):
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))  # whoever commits meanwhile
    write(dataset, output)
    names = ["results.json", "timings.json", "images.csv", "report.md"]
    first = [(output / name).read_bytes() for name in names]
    write(dataset, output, processes=2)
    second = [(output / name).read_bytes() for name in names]
    assert first[0] == second[0] and first[2] == second[2]
    assert b'"processes": 2' in second[1]


def test_an_older_sheet_does_not_stay(dataset, output):
    sheet = output / "plots" / "images_twin.png"
    sheet.parent.mkdir()
    sheet.write_bytes(b"older")
    write(dataset, output, ["bilinear", "twin"])
    assert not sheet.exists()


def test_protocols_without_background(dataset, output):
    protocol = dataclasses.asdict(dataclasses.replace(RANDOM_PROTOCOL, background=()))
    for arm in ("bilinear", "loftup"):
        record_settings(output / "predictions", arm, protocol=protocol)
    data = write(dataset, output, ["bilinear", "loftup"])
    assert "background" not in data["arms"]["loftup"]["per_class"]
    assert data["arms"]["loftup"]["mIoU"] == 100
    pixels = sum(np.count_nonzero(truth % IGNORE) for truth in TRUTH.values())
    assert np.sum(data["arms"]["bilinear"]["confusion"]) == pixels
    record_settings(output / "predictions", "twin")
    with pytest.raises(ValueError, match=r"'bilinear' and 'twin' in .*\(protocol\)"):
        write(dataset, output, ["bilinear", "twin"])


def test_one_arm_alone(dataset, output):
    data = write(dataset, output, ["loftup+sam2"], baseline="loftup+sam2")
    assert list(data["arms"]) == ["loftup+sam2"] and data["differences"] == {}
    assert not list((output / "plots").glob("images_*"))


def test_nothing_is_written_where_predictions_are_missing(dataset, output):
    (output / "predictions/loftup/b.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"no prediction b\.png of arm 'loftup' in "):
        write(dataset, output)
    with pytest.raises(FileNotFoundError, match="no predictions of arm 'none' in "):
        write(dataset, output, ["bilinear", "none"])
    assert [path.name for path in output.iterdir()] == ["predictions"]


def test_images_left_out(dataset, output):
    cut_short(dataset.root / "SegmentationClass" / "b.png")
    data = write(dataset, output)
    assert data["images"]["scored"] == 2 and data["images"]["asked"] == 3
    (failure,) = data["images"]["failed"]
    assert failure["id"] == "b" and "SegmentationClass/b.png" in failure["error"]
    assert "SegmentationClass/b.png" in (output / "report.md").read_text(encoding="utf-8")
    assert "b" not in {row["id"] for row in csv.DictReader((output / "images.csv").open())}


@pytest.mark.parametrize(
    "data",
    [
        {"a": [1, 2.5, None], "b": [[1, 2], [3, 4]], "c": []},
        {"a": ["x", "y [z]"], "b": ["[ 1 ]", 'quote " and \\'], "c": "é"},
        {"root": "data [ 1 ] of [ 2 ]", "list": [{"a": [1]}, {"b": {}}]},
        {"a": ["one, [\n two", "]"], "b": [True, "\\"]},
    ],
)
def test_readable_json(data):
    text = readable_json(data)
    assert json.loads(text) == data and text.endswith("\n")


def test_readable_json_keeps_lists_on_one_line():
    assert readable_json({"a": [1, 2], "b": {"c": [["x"], []]}}) == (
        '{\n "a": [1, 2],\n "b": {\n  "c": [\n   ["x"],\n   []\n  ]\n }\n}\n'
    )


def test_commit(monkeypatch, tmp_path):
    found = commit()
    assert found is None or set(found.rstrip("+")) <= set("0123456789abcdef")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    assert commit() is None  # as in a copy without its history
