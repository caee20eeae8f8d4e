"""The probe benchmark by its command: table, results, one line for bad input."""

import json

import numpy as np
import pytest

from benchmarks.probe import main
from benchmarks.published_probes import PUBLISHED
from pipeline.datasets.rendered_voc import render_voc

SMALL = ["--epochs", "1", "--pixels", "50", "--seeds", "0", "1", "--backbones", "tiny"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    render_voc(root, images=2, seed=3)
    return root


def test_one_command(scenes, tmp_path, capsys):
    own = tmp_path / "own.py"
    own.write_text(
        "from torch.nn import functional as F\n"
        "def plain(features, guide, size):\n"
        "    return F.interpolate(features, size, mode='bilinear')\n"
    )
    options = ["--dataset", "voc21", "--root", str(scenes), "--train", "val", "--crop", "64"]
    options += ["--upsamplers", "none", f"{own}:plain", "--output", str(tmp_path / "out"), *SMALL]
    assert main(options) == 0
    printed = capsys.readouterr().out
    data = json.loads(printed.splitlines()[-1])
    assert data == json.loads((tmp_path / "out" / "results.json").read_text())
    (found,) = data["backbones"].values()
    own, low_res = found["own"], found["low-res"]
    assert set(own) == set(low_res) == {"bilinear", "none", "plain"}
    assert own["none"]["mIoU"]["seeds"] == low_res["none"]["mIoU"]["seeds"]
    assert len(own["none"]["mIoU"]["seeds"]) == 2
    for arms in (own, low_res):
        assert arms["bilinear"]["mIoU"]["difference"] == [0, 0, 0]
        # The same upsampler by another way, on other 16-bit roundings.
        mine, ours = (arms[name]["mIoU"]["value"] for name in ("plain", "bilinear"))
        assert np.isfinite(ours) and mine == pytest.approx(ours, abs=0.5)
    report = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "| plain | low-res |" in report and "middle 64 px" in report
    assert all(row.source in report for row in PUBLISHED)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--crop", "0"], "--crop must be at least 1"),
        (["--upsamplers", "sharper"], "unknown upsampler 'sharper'"),
        (["--upsamplers", "loftup=none.pt"], "weights file 'none.pt'"),
        (["--train", "nothing"], "no split 'nothing'"),
        (["--lr", "0"], "lr of the probe must be positive"),
    ],
)
def test_bad_input_is_one_line(scenes, tmp_path, capsys, options, message):
    given = ["--dataset", "voc21", "--root", str(scenes), "--train", "val"]
    assert main([*given, "--output", str(tmp_path), *SMALL, *options]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error.splitlines()[-1]
