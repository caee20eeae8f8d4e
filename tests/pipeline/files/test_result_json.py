"""Results come back from their files as they were, or not at all."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest

from pipeline.result import Segmentation

from ..exports.samples import all_masks, result


@pytest.mark.parametrize("found", [all_masks(), result()], ids=["masks", "nothing found"])
def test_round_trip(found, tmp_path):
    found = replace(found, timings={"clip": 0.1}, settings={"size": [1, 2], "cap": None},
                    versions={"torch": "2"})  # fmt: skip
    found.save_json(tmp_path / "a.json")
    again = Segmentation.load_json(tmp_path / "a.json")
    for field in fields(Segmentation):
        one, other = getattr(found, field.name), getattr(again, field.name)
        if field.name == "points":
            one, other = np.array(one), np.array(other)
        if isinstance(one, np.ndarray):
            assert one.dtype == other.dtype and np.array_equal(one, other), field.name
        else:
            assert one == other, field.name
    again.save_json(tmp_path / "b.json")
    assert (tmp_path / "b.json").read_bytes() == (tmp_path / "a.json").read_bytes()


def test_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"result not found: .*; expected a file of"):
        Segmentation.load_json(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.pop("label_map"), "'label_map' is missing"),
        (lambda data: data["masks"][0].pop("score"), "'score' is missing"),
        (lambda data: data["image"].update(height=39), r"size \[40, 60\], the image has \[39,"),
        (lambda data: data["masks"][0].update(score=2), r"scores must lie in 0…1"),
        (lambda data: data["masks"][0].update(class_id=9), r"class_ids must lie in 0…3"),
        (lambda data: data["masks"][0].update(class_id="dog"), "class_ids must be integers"),
        (lambda data: data["label_map"][0].update(class_id=300), "a label map has the class 300"),
        (lambda data: data["label_map"][0].update(class_id=4), "a label map has the class 4 of 4"),
        (lambda data: data["label_map"][0].update(class_id=1.5), "a label map has the class 1.5"),
        (lambda data: data.update(masks=None), "a value of a wrong type"),
        (lambda data: data["masks"][0]["segmentation"].update(counts="~"), "not COCO's run"),
        (lambda data: data["masks"][0]["segmentation"].update(counts="0"), "do not add up to 40×6"),
        (lambda data: data["label_map"][0]["segmentation"].update(counts="0"), "do not add up"),
        (lambda data: data["dense_map"][0].update(segmentation=3), "no run lengths"),
        (lambda data: data["image"].update(height=10**9, width=10**9), "the image has"),
    ],
)
def test_damaged(change, message, tmp_path):
    data = all_masks().to_json_dict()
    change(data)
    (tmp_path / "a.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match=rf"a.json' is no result of --save-json, or .*{message}"):
        Segmentation.load_json(tmp_path / "a.json")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"masks": []}', "\udc80", "[" * 100_000])
def test_something_else(text, tmp_path):
    (tmp_path / "a.json").write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(ValueError, match="is no result of --save-json, or damaged: "):
        Segmentation.load_json(tmp_path / "a.json")
