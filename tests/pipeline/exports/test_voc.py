"""VOC's palette PNGs hold classes and objects."""

import numpy as np
import pytest
from PIL import Image

from pipeline.exports.voc import VocExport, object_map
from pipeline.files.label_png import read_index_png

from .samples import NAMES, H, W, masks, result


def test_round_trip(tmp_path):
    export = VocExport(tmp_path, [*NAMES, "two\nlines"])
    truth = result((masks()["disk"], 2, 0.5), (masks()["pixel"], 0, 0.25))
    export.add("a/sofá.v2.jpg", truth)
    export.add("b.png", result())
    export.finish()
    export.discard()
    labels = read_index_png(tmp_path / "SegmentationClass" / "a" / "sofá.v2.png")
    assert np.array_equal(labels, truth.label_map)
    objects = read_index_png(tmp_path / "SegmentationObject" / "a" / "sofá.v2.png")
    assert np.array_equal(objects == 1, truth.masks[0])
    assert np.array_equal(objects == 2, truth.masks[1])
    for kind in ("Class", "Object"):
        with Image.open(tmp_path / f"Segmentation{kind}" / "b.png") as image:
            assert image.mode == "P" and image.size == (W, H) and not np.any(np.asarray(image))
    listing = tmp_path / "ImageSets" / "Segmentation" / "all.txt"
    assert listing.read_text(encoding="utf-8") == "a/sofá.v2\nb\n"
    names = (tmp_path / "class_names.txt").read_text(encoding="utf-8").splitlines()
    assert names == ["background", *NAMES, "two lines"]


def test_overlaps_go_to_the_class_of_the_label_map_and_its_best_mask():
    whole = np.ones((H, W), bool)
    left, top = whole.copy(), whole.copy()
    left[:, 20:], top[10:] = False, False
    label_map = np.ones((H, W), np.uint8)
    label_map[30:] = 2
    label_map[:, 50:] = 0
    found = result((left, 0, 0.5), (whole, 0, 0.25), (top, 0, 0.75), (whole, 1, 0.125))
    objects = object_map(result(*_fields(found), label_map=label_map))
    expected = np.full((H, W), 2)  # the whole image, where nothing better is
    expected[:, :20] = 1
    expected[:10] = 3
    expected[30:] = 4  # the other class
    expected[:, 50:] = 0
    assert np.array_equal(objects, expected)


def _fields(found):
    return zip(found.masks, found.class_ids, found.scores, strict=True)


def test_equal_scores_go_to_the_first():
    whole = np.ones((H, W), bool)
    assert np.all(object_map(result((whole, 0, 0.5), (whole, 0, 0.5))) == 1)


def test_too_many(tmp_path):
    pixel = masks()["pixel"]
    assert object_map(result(*[(pixel, 0, 0.5)] * 254)).max() == 1
    export = VocExport(tmp_path, NAMES)
    with pytest.raises(ValueError, match=r"VOC can number 254 objects .*sofá.jpg has 255; raise"):
        export.add("a.jpg", result(*[(pixel, 0, 0.5)] * 255))
    with pytest.raises(ValueError, match="maps tell 254 classes apart, here are 255; export ano"):
        VocExport(tmp_path, ["x"] * 255)
    assert not list(tmp_path.iterdir())
