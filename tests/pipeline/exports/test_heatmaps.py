"""Heat maps hold probabilities, and their colours get lighter with them."""

import numpy as np
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
        assert image.mode == "P" and image.size == (3, 2)
        assert np.asarray(image).tolist() == [[0, 64, 128], [191, 255, 1]]
        brightness = np.reshape(image.getpalette(), (-1, 3)).sum(axis=1)
        red, green, blue = image.convert("RGB").getpixel((2, 0))
    assert (np.diff(brightness[::16]) > 0).all() and brightness[0] < 10
    assert red > green > 0 and red > blue  # RGB, not BGR
    assert np.all(np.asarray(Image.open(paths[3])) == 255)


def test_names_stay_in_order_however_many():
    assert [path.name for path in heatmap_files("", ["dog"], background=False)] == ["000_dog.png"]
    for count, first in ((1000, "000_c0.png"), (1203, "0000_c0.png")):
        paths = heatmap_files("a", [f"c{i}" for i in range(count)], background=False)
        assert paths == sorted(paths) and paths[0].name == first and len(set(paths)) == count
