"""Plots are written for what there are numbers of, always the same, with something on them."""

import numpy as np
import pytest
from PIL import Image

from pipeline.evaluation.report.plots import BLUE, GREY, VERMILLION, save_plots

from .made_up import make_results, make_timings

MANY = (
    "none", "bilinear", "loftup", "maskclip", "loftup+pamr", "loftup+maskclip+pamr+sam2+centroid",
)  # fmt: skip


def read(path):
    return np.asarray(Image.open(path).convert("RGB"))


def pixels(picture, color):
    """Where the picture has exactly this colour, "#rrggbb"."""
    return (picture == [int(color[i : i + 2], 16) for i in (1, 3, 5)]).all(axis=2)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The plots of a few arms and of many."""
    folder, plots = tmp_path_factory.mktemp("plots"), []
    for number, arms in enumerate((MANY[1:3], MANY)):
        gains = {arm: 2.0 * i if arm != "maskclip" else -7.0 for i, arm in enumerate(arms)}
        results = make_results(arms, gains=gains)
        plots.append(save_plots(folder / f"new{number}", results, make_timings(arms)))
    return plots


@pytest.mark.parametrize("which", [0, 1])
def test_all_four(drawn, which):
    paths = drawn[which]
    assert [path.name for path in paths] == ["arms.png", "classes.png", "sizes.png", "times.png"]
    for path in paths:
        picture = read(path)
        border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
        assert (border == 255).all(), f"{path.name}: something is cut off"
        assert pixels(picture, BLUE).mean() > 0.02, path.name
    assert all(pixels(read(path), GREY).mean() > 0.002 for path in paths[::2])  # the baseline
    assert pixels(read(paths[1]), VERMILLION).mean() > 0.0005  # classes lost


def test_a_picture_grows_with_the_arms(drawn):
    for small, large in list(zip(*drawn, strict=True))[:3]:
        assert read(large).shape[0] > read(small).shape[0]


def test_same_numbers_same_bytes(tmp_path):
    arms = ("bilinear", "loftup+sam2")
    first = save_plots(tmp_path / "a", make_results(arms), make_timings(arms))
    second = save_plots(tmp_path / "b", make_results(arms), make_timings(arms))
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


def test_only_what_was_measured(tmp_path):
    results = make_results(("alone",), sizes=False)
    results["arms"]["alone"]["edge_mIoU"] = None
    results["arms"]["alone"]["mIoU_interval"] = [None, None]
    assert [path.name for path in save_plots(tmp_path, results, {})] == ["arms.png"]


def test_bars_are_as_long_as_their_numbers(tmp_path):
    results = make_results(("a", "b"), gains={"a": 0.0, "b": 5.0}, sizes=False)
    for arm, value in (("a", 30.0), ("b", 60.0)):
        results["arms"][arm] |= {"mIoU": value, "mIoU_interval": [value, value]}
    picture = read(save_plots(tmp_path, results, {})[0])
    left = picture[:, : picture.shape[1] // 3]  # the first panel
    grey, blue = (pixels(left, color).sum(axis=1).max() for color in (GREY, BLUE))
    assert blue / grey == pytest.approx(2, abs=0.05)
