"""Cutouts show what the masks show, and take nobody's photographs away."""

import numpy as np
from PIL import Image

from pipeline.exports.cutouts import save_cutouts
from pipeline.files.image_files import MARKER

from .samples import NAMES, H, W, masks, result


def test_files(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (H, W, 3), np.uint8)
    nothing = np.zeros((H, W), bool)
    found = result((masks()["disk"], 1, 0.5), (nothing, 0, 0.5), (masks()["column"], 0, 0.5))
    paths = save_cutouts(tmp_path / "new", image, found)
    assert [path.name for path in paths] == ["000_the__big__cat___1.png", "002_dog.png"]
    for path, index in zip(paths, (0, 2), strict=True):
        cut, (x0, y0, x1, y1) = np.asarray(Image.open(path)), found.boxes[index].astype(int)
        assert np.array_equal(cut[..., :3], image[y0:y1, x0:x1])
        assert np.array_equal(cut[..., 3] == 255, found.masks[index, y0:y1, x0:x1])
        assert set(np.unique(cut[..., 3])) <= {0, 255}
    save_cutouts(tmp_path / "new", image, result((masks()["row"], 2, 0.5)))
    left = {path.name for path in (tmp_path / "new").iterdir()}
    assert left == {MARKER, f"000_{'ソファー__'}__sofá.png"} and len(NAMES) == 4


def test_photographs_in_the_folder_stay(tmp_path):
    (tmp_path / "001_beach.png").write_bytes(b"a photograph")
    save_cutouts(tmp_path, np.zeros((H, W, 3), np.uint8), result((masks()["row"], 0, 0.5)))
    assert {path.name for path in tmp_path.iterdir()} == {"001_beach.png", "000_dog.png"}
