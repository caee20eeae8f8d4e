"""Results are checked when made, and their files hold what they held."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.files.label_png import read_index_png
from pipeline.files.rle import decode_rle
from pipeline.result import Segmentation

H, W = 4, 6


def segmentation(**changes) -> Segmentation:
    """A cat of 2×3 pixels at the top left, a sofa of 1×2 at the bottom right."""
    masks = np.zeros((2, H, W), bool)
    masks[0, :2, :3] = True
    masks[1, 3, 4:] = True
    label_map = np.zeros((H, W), np.uint8)
    label_map[masks[0]], label_map[masks[1]] = 2, 3
    fields = dict(
        label_map=label_map,
        dense_map=np.full((H, W), 1, np.uint8),
        masks=masks,
        class_ids=[1, 2],
        scores=[0.5, 1.0],
        confidences=[0.75, 0.25],
        agreement=[1, 0],
        boxes=[[0, 0, 3, 2], [4, 3, 6, 4]],
        points=([[1, 0]], [[4, 3], [5, 3]]),
        sources=["sam2", "region"],
        class_names=["dog", "cat", "sofá"],
        image_path="bilder/sofá.jpg",
        timings={"clip": 0.5},
        settings={"size": (H, W), "path": Path("a/b"), "scale": np.float32(0.5), "cap": None},
        versions={"torch": "2"},
    )
    return Segmentation(**(fields | changes))


def test_types_and_names():
    result = segmentation()
    assert len(result) == 2 and result.size == (H, W)
    assert [result.class_name(i) for i in range(2)] == ["cat", "sofá"]
    assert result.class_ids.dtype == np.int64
    for values in (result.scores, result.confidences, result.agreement, result.boxes):
        assert values.dtype == np.float32
    assert [points.shape for points in result.points] == [(1, 2), (2, 2)]
    assert result.class_names == ("dog", "cat", "sofá") and result.sources == ("sam2", "region")


def test_empty():
    dense = np.full((H, W), 1, np.uint8)
    result = Segmentation.empty((H, W), ["cat"], dense_map=dense, timings={"clip": 1.0})
    assert len(result) == 0 and result.masks.shape == (0, H, W) and result.boxes.shape == (0, 4)
    assert not result.label_map.any() and result.dense_map is dense
    data = json.loads(json.dumps(result.to_json_dict()))
    assert data["masks"] == [] and data["unnamed_pixels"] == H * W
    assert data["timings"] == {"clip": 1.0}
    assert not Segmentation.empty((H, W), ["cat"]).dense_map.any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_map": np.zeros((H, W), np.int64)}, "label_map must be uint8"),
        ({"label_map": np.full((H, W), 4, np.uint8)}, "label_map has label 4, but the 3 classes"),
        ({"dense_map": np.zeros((W, H), np.uint8)}, r"dense_map must have shape \(4, 6\)"),
        ({"masks": np.zeros((2, H, W), np.float32)}, "masks must be bool, got float32"),
        ({"probs": np.zeros((1, W, H))}, r"probs must have shape \(\d, 4, 6\), got \(1, 6, 4\)"),
        ({"masks": np.zeros((2, W, H), bool)}, r"masks must have shape \(2, 4, 6\), got \(2, 6, 4"),
        ({"masks": np.zeros((3, H, W), bool)}, r"class_ids must have shape \(3,\), got \(2,\)"),
        ({"class_ids": [1, 3]}, r"class_ids must lie in 0…2, got \[1, 3\]"),
        ({"class_ids": [-1, 0]}, "class_ids must lie in 0…2"),
        ({"class_ids": [0.0, 1.0]}, "class_ids must be integers"),
        ({"scores": [0.5, 1.01]}, "scores must lie in 0…1"),
        ({"scores": [0.5, np.nan]}, "scores must lie in 0…1"),
        ({"agreement": [0.5]}, r"agreement must have shape \(2,\), got \(1,\)"),
        ({"boxes": [[0, 0, 3], [4, 3, 6]]}, r"boxes must have shape \(2, 4\)"),
        ({"boxes": [[3, 0, 0, 2], [4, 3, 6, 4]]}, "boxes must be finite XYXY"),
        ({"points": ([[1, 0]],)}, r"points must have shape \(2,\), got \(1,\)"),
        ({"points": ([1, 0], [[1, 2]])}, "points of a mask must be"),
        ({"sources": ["sam2"]}, r"sources must have shape \(2,\), got \(1,\)"),
        ({"class_names": "cat"}, "class_names must be a list"),
        ({"class_names": ["a", "b", 3]}, "class_names must be a list of names, got"),
    ],
)
def test_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        segmentation(**changes)


def test_json_file(tmp_path):
    result = segmentation()
    path = tmp_path / "new" / "folder" / "à.json"
    result.save_json(path)
    data = json.loads(path.read_text(encoding="utf-8"))
    assert data["image"] == {"path": "bilder/sofá.jpg", "height": H, "width": W}
    assert data["class_names"] == ["dog", "cat", "sofá"]
    assert data["class_pixels"] == {"dog": 0, "cat": 6, "sofá": 2} and data["unnamed_pixels"] == 16
    assert data["settings"] == {"size": [H, W], "path": "a/b", "scale": 0.5, "cap": None}
    assert data["timings"] == {"clip": 0.5} and data["versions"] == {"torch": "2"}
    sofa = data["masks"][1]
    rle = sofa.pop("segmentation")
    assert sofa == {
        "class_id": 2,
        "class_name": "sofá",
        "score": 1.0,
        "confidence": 0.25,
        "agreement": 0.0,
        "source": "region",
        "box": [4, 3, 6, 4],
        "bbox": [4, 3, 2, 1],
        "area": 2,
        "points": [[4, 3], [5, 3]],
    }
    np.testing.assert_array_equal(decode_rle(rle), result.masks[1])
    assert list(path.parent.iterdir()) == [path]  # nothing left over


def test_json_refuses_what_it_cannot_hold(tmp_path):
    with pytest.raises(ValueError, match="cannot write object as JSON"):
        segmentation(settings={"x": object()}).save_json(tmp_path / "a.json")
    with pytest.raises(ValueError, match="JSON compliant"):
        segmentation(timings={"x": float("nan")}).save_json(tmp_path / "a.json")
    assert not list(tmp_path.iterdir())
    segmentation(image_path="b\udce9.jpg").save_json(tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text())["image"]["path"] == "b?.jpg"


def test_label_map_file(tmp_path):
    result = segmentation()
    path = tmp_path / "map"  # PNG whatever the name
    result.save_label_map(path)
    assert np.array_equal(read_index_png(path), result.label_map)
    with Image.open(path) as image:
        assert image.format == "PNG" and image.mode == "P" and image.size == (W, H)
        assert image.convert("RGB").getpixel((0, 0)) == (0, 128, 0)  # the cat, label 2
        assert image.convert("RGB").getpixel((5, 0)) == (0, 0, 0)


@pytest.mark.parametrize(("classes", "dtype"), [(254, np.uint8), (255, np.uint16),
                                                (300, np.uint16), (1203, np.uint16)])  # fmt: skip
def test_label_maps_of_many_classes(classes, dtype, tmp_path):
    values = np.resize(np.arange(classes + 1), (17, 80)).astype(dtype)  # all of them
    empty = Segmentation.empty(values.shape, [f"c{i}" for i in range(classes)])
    assert empty.label_map.dtype == empty.dense_map.dtype == dtype
    result = replace(empty, label_map=values, dense_map=values[::-1].astype(np.uint16))
    assert result.dense_map.dtype == dtype  # what fits is kept small
    result.save_json(tmp_path / "a.json")
    again = Segmentation.load_json(tmp_path / "a.json")
    result.save_label_map(tmp_path / "a.png")
    for labels in (again.label_map, again.dense_map[::-1],
                   read_index_png(tmp_path / "a.png", wide=True)):  # fmt: skip
        assert labels.dtype == dtype and np.array_equal(labels, values)
    with pytest.raises(ValueError, match=f"label {classes + 1}, but the {classes} classes end"):
        replace(empty, label_map=np.full((3, 5), classes + 1, np.uint16))
    if dtype == np.uint16:  # bytes could have wrapped around
        with pytest.raises(ValueError, match=f"dense_map must be uint16 .* for {classes} classes"):
            Segmentation.empty((3, 5), empty.class_names, dense_map=np.zeros((3, 5), np.uint8))
