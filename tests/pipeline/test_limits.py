"""Results of models that know a small world only say so, but for the bundled scene."""

import dataclasses

import numpy as np
from PIL import Image

from models.images import load_image
from models.presets import PRESETS
from pipeline.drawing.layout import notes
from pipeline.limits import limits_of
from pipeline.result import Segmentation
from pipeline.scene import SCENE


def test_only_tiny_is_limited_and_not_to_its_scene(tmp_path):
    tiny, scene = PRESETS["tiny"], load_image(SCENE.path)
    Image.fromarray(scene).save(tmp_path / "copy.png")
    assert limits_of(tiny, load_image(tmp_path / "copy.png")) == ""
    assert limits_of(PRESETS["vit-b16"], scene[:9]) == ""
    for image in (None, scene[:-1], scene[::-1], 255 - scene):
        assert limits_of(tiny, image).startswith("tiny knows drawn scenes only")


def test_what_a_result_says_of_itself():
    result = Segmentation.empty((30, 40), ["dog"])
    assert result.limits == "" and "drawn" not in repr(result)
    told = dataclasses.replace(result, settings={"limits": limits_of(PRESETS["tiny"])})
    assert told.limits == told.to_json_dict()["settings"]["limits"]
    assert repr(told).endswith("nothing; tiny knows drawn scenes only, no photographs>")
    plain, more = (notes(["dog"], (), 2000, text) for text in ("", told.limits))
    assert more.height > plain.height  # a line of the picture
    assert np.array_equal(np.asarray(more)[-plain.height :], np.asarray(plain))


def test_the_segmenter_records_it(random_segmenter):
    preset = dataclasses.replace(random_segmenter.networks.preset, knows="noise only")
    image = np.zeros((32, 48, 3), np.uint8)
    assert random_segmenter.segment(image, ["dog"]).limits == ""
    before, random_segmenter.networks.preset = random_segmenter.networks.preset, preset
    try:
        assert "knows noise only" in random_segmenter.segment(image, ["dog"]).limits
    finally:
        random_segmenter.networks.preset = before
