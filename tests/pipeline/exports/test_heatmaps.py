"""Heat maps hold probabilities, and their colours get lighter with them."""

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.exports.heatmaps import heatmap_files, save_heatmaps


def test_values_colours_and_names(tmp_path):
    probs = np.zeros((4, 2, 3), np.float32)
    probs[0] = [[0, 0.25, 0.5], [0.75, 1, 1 / 255]]
    probs[3] = 1
    names = ["dog", "a/b: sofá 🛋", "ソ" * 100]
    paths = save_heatmaps(tmp_path / "new", probs, names)
    assert [path.name for path in paths] == [
        "000_dog.png", "001_a_b__sofá__.png", f"002_{'ソ' * 60}.png", "003_background.png",
    ]  # fmt: skip
    with Image.open(paths[0]) as image:
        assert image.mode == "L" and image.size == (3, 2)
        assert np.asarray(image).tolist() == [[0, 64, 128], [191, 255, 1]]
        assert image.convert("RGB").getpixel((2, 0)) == (128, 128, 128)
    assert cv2.imread(str(paths[0]), cv2.IMREAD_UNCHANGED).tolist() == [[0, 64, 128], [191, 255, 1]]
    assert np.all(np.asarray(Image.open(paths[3])) == 255)


def test_other_formats(tmp_path):
    probs = np.array([[[0, 0.25, 1]], [[1, 0.75, 1e-4]]], np.float32)
    first, second = save_heatmaps(tmp_path, probs, ["a", "b"], kind="png16")
    assert cv2.imread(str(second), cv2.IMREAD_UNCHANGED).tolist() == [[65535, 49151, 7]]
    assert np.asarray(Image.open(first)).tolist() == [[0, 16384, 65535]]
    paths = save_heatmaps(tmp_path, probs, ["a", "b"], kind="npy")
    assert paths == heatmap_files(tmp_path, ["a", "b"], background=False, kind="npy")
    assert paths[1].name == "001_b.npy" and np.array_equal(np.load(paths[1]), probs[1])
    with pytest.raises(ValueError, match="no heat map format 'gif'; valid: png, png16, npy"):
        save_heatmaps(tmp_path, probs, ["a", "b"], kind="gif")


def test_names_stay_in_order_however_many():
    assert [path.name for path in heatmap_files("", ["dog"], background=False)] == ["000_dog.png"]
    for count, first in ((1000, "000_c0.png"), (1203, "0000_c0.png")):
        paths = heatmap_files("a", [f"c{i}" for i in range(count)], background=False)
        assert paths == sorted(paths) and paths[0].name == first and len(set(paths)) == count
