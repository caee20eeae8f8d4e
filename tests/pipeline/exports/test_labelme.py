"""LabelMe's files: polygons drawn as LabelMe draws them, and its own reader where installed."""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.exports.labelme import LabelmeExport

from .samples import NAMES, H, W, all_masks, masks, result
from .test_polygons import fill_pillow


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def test_round_trip(tmp_path):
    export = LabelmeExport(tmp_path, NAMES)
    truth = all_masks()
    export.add("a/sofá.v2.jpg", truth)
    export.finish()
    export.discard()
    data = read(tmp_path / "a" / "sofá.v2.json")
    assert (data["imageHeight"], data["imageWidth"], data["imageData"]) == (H, W, None)
    objects = defaultdict(list)
    for number, shape in enumerate(data["shapes"]):
        assert shape["shape_type"] == "polygon" and len(shape["points"]) >= 3
        objects[shape["group_id"] or -number - 1].append(shape)
    assert len(objects) == len(truth)
    for index, shapes in enumerate(objects.values()):
        assert {shape["label"] for shape in shapes} == {truth.class_name(index)}
        assert {shape["score"] for shape in shapes} == {round(float(truth.scores[index]), 4)}
        drawn = np.any([fill_pillow(shape["points"]) for shape in shapes], axis=0)
        assert np.array_equal(drawn, truth.masks[index])


def test_the_picture_is_found_from_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "elsewhere" / "out").mkdir(parents=True)
    (tmp_path / "link").symlink_to("elsewhere/out")
    for folder in ("out", "link"):
        LabelmeExport(Path(folder), NAMES).add("sofá.jpg", result())
        picture = read(Path(folder, "sofá.json"))["imagePath"]
        assert not picture.startswith("/")
        assert (Path(folder) / picture).parent.resolve() == tmp_path / "pictures"
        assert Path(picture).name == "sofá.jpg"
    LabelmeExport(Path("out"), NAMES).add("a/b.png", result(image_path=None))
    assert read(Path("out/a/b.json"))["imagePath"] == "b.png"


def test_labelme_itself_reads_it(tmp_path):
    pytest.importorskip("labelme", reason="labelme, an optional reader, is not installed")
    from labelme._label_file import read_label_file
    from labelme.utils import shapes_to_label

    (tmp_path / "pictures").mkdir()
    picture = tmp_path / "pictures" / "sofá.jpg"
    Image.new("RGB", (W, H)).save(picture)
    truth = result((masks()["parts"], 1, 0.5), (masks()["pixel"], 2, 0.5), image_path=str(picture))
    truth.masks[0][7, 9] = False  # LabelMe's maps have one object per pixel
    LabelmeExport(tmp_path / "out", NAMES).add("sofá.jpg", truth)
    file = read_label_file(str(tmp_path / "out" / "sofá.json"))
    labels = {name: i for i, name in enumerate(NAMES, 1)}
    classes, objects = shapes_to_label((H, W), file.shapes, labels)
    assert file.image_path == "../pictures/sofá.jpg"
    for index, mask in enumerate(truth.masks):
        assert np.array_equal(objects == index + 1, mask)
        assert set(classes[mask]) == {truth.class_ids[index] + 1}
