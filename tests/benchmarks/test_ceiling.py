"""The ceiling of a grid: pooling by hand, whole runs on pictures of one's own, and bad input."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import ceiling, segmentation


def write_pictures(folder, count: int = 2, size: tuple[int, int] = (24, 32)) -> list[str]:
    """Bright right halves that begin at a patch's middle, with void in a corner."""
    for name in ("images", "labels"):
        (folder / name / "a").mkdir(parents=True)
    for index in range(count):
        labels = np.zeros(size, np.uint8)
        labels[:, 12:] = 1
        image = np.stack([60 + 120 * labels] * 3, axis=2)
        labels[:3, :3] = 255
        Image.fromarray(image).save(folder / "images" / "a" / f"{index}.png")
        Image.fromarray(labels).save(folder / "labels" / "a" / f"{index}.png")
    return ["--images", str(folder / "images"), "--labels", str(folder / "labels")]


def test_pooled_labels_by_hand():
    labels = torch.tensor([[0, 0, 1, 1], [0, 2, 1, 255], [255, 255, 2, 2], [255, 255, 2, 0]])
    shares = ceiling.pool_labels(labels, 3, (2, 2))
    expected = [[[0.75, 0], [0, 0.25]], [[0, 1], [0, 0]], [[0.25, 0], [0, 0.75]]]
    torch.testing.assert_close(shares[0], torch.tensor(expected))


def test_a_run_on_pictures_of_ones_own(tmp_path, capsys):
    given = write_pictures(tmp_path)
    output = tmp_path / "out"
    names = ["none", "bilinear", "jbu", "bilinear+pamr"]
    argv = [*given, "--stride", "8", "4", "--upsamplers", *names, "--output", str(output)]
    assert ceiling.main([*argv, "--resamples", "10"]) == 0
    data = json.loads((output / "results.json").read_text())
    assert data["upsamplers"] == data["strides"]["8"] and data["settings"]["number"] == 2
    assert list(data["upsamplers"]) == names
    # The edge lies in the middle of cells of 8 pixels: nearest gets 4 of 32 columns wrong, and of
    # cells of 4 none. The shares of cell 2 are ½ and ½, of which argmax takes the first.
    iou = 100 * np.mean([(24 * 12 - 9) / (24 * 16 - 9), 16 * 24 / (20 * 24)])
    assert data["upsamplers"]["none"]["mIoU"] == pytest.approx(iou, abs=1e-3)
    assert data["strides"]["4"]["none"]["mIoU"] == 100
    assert data["upsamplers"]["jbu"]["mIoU"] > 99  # the guide shows the edge
    assert data["upsamplers"]["jbu"]["edge_mIoU"] > data["upsamplers"]["none"]["edge_mIoU"]
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == data["strides"]
    text = (output / "report.md").read_text()
    assert "## Stride 4" in text and "stride 8, none: mIoU -" in text


def test_without_pictures_scenes_are_rendered(tmp_path, monkeypatch):
    monkeypatch.setattr(segmentation, "ROOT", tmp_path)
    monkeypatch.setattr(segmentation, "SCENES", 2)
    argv = ["--limit", "1", "--stride", "32", "--upsamplers", "bilinear", "--resamples", "10"]
    assert ceiling.main([*argv, "--output", str(tmp_path / "out")]) == 0
    data = json.loads((tmp_path / "out" / "results.json").read_text())
    assert data["settings"]["images"] == "rendered scenes" and data["settings"]["number"] == 1
    assert 20 < data["upsamplers"]["bilinear"]["mIoU"] < 100


def test_segments_are_scored_image_by_image(tmp_path):
    argv = [*write_pictures(tmp_path), "--segments", "--stride", "8", "--upsamplers", "none"]
    assert ceiling.main([*argv, "--output", str(tmp_path / "out"), "--limit", "1"]) == 0
    data = json.loads((tmp_path / "out" / "results.json").read_text())
    iou = 100 * np.mean([(24 * 12 - 9) / (24 * 16 - 9), 16 * 24 / (20 * 24)])
    assert data["upsamplers"]["none"]["mIoU"] == pytest.approx(iou, abs=1e-3)
    assert data["settings"]["classes"] is None and data["settings"]["number"] == 1


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--upsamplers", "naf"], "'naf' was trained on features and cannot upsample labels"),
        (["--upsamplers", "jbuu"], "unknown upsampler 'jbuu'; valid: none"),
        (["--stride", "0"], "--stride must be at least 1 pixel, got 0"),
        (["--images", "nowhere"], "--images and --labels belong together"),
        (["--images", "nowhere", "--labels", "no"], "folder nowhere does not exist"),
        (["--segments"], "add --images and --labels"),
        (["--limit", "0"], "--limit must be at least 1 image, got 0"),
    ],
)
def test_bad_input_is_one_line(argv, message, capsys):
    assert ceiling.main(argv) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
