"""Results are checked when made, and their files hold what they held."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.drawing.picture import draw_segmentation
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


def test_single_objects():
    result = segmentation()
    cat, sofa = result
    assert (cat.class_name, cat.class_id, cat.score, cat.area) == ("cat", 1, 0.5, 6)
    assert np.array_equal(sofa.mask, result.masks[1]) and sofa.box.tolist() == [4, 3, 6, 4]
    assert sofa.points.tolist() == [[4, 3], [5, 3]] and sofa.source == "region"
    assert result[-1].class_name == result[np.int64(1)].class_name == "sofá"
    with pytest.raises(IndexError):
        result[2]
    assert repr(cat) == "<cat 0.50, box (0, 0, 3, 2), 6 px>"
    image = np.arange(H * W * 3, dtype=np.uint8).reshape(H, W, 3)
    cut = sofa.cutout(image)
    assert cut.shape == (1, 2, 4) and np.array_equal(cut[..., :3], image[3:, 4:])
    assert np.all(cut[..., 3] == 255)


def test_words_about_it():
    assert repr(segmentation()) == "<Segmentation of bilder/sofá.jpg, 6×4: 1 cat, 1 sofá>"
    many = replace(Segmentation.empty((H, W), [f"c{i}" for i in range(200)]), settings={"x": "y"})
    assert repr(many) == "<Segmentation of an image, 6×4: nothing>"
    ids = np.arange(9)
    few = replace(many, masks=np.zeros((9, H, W), bool), class_ids=ids, scores=ids / 9,
                  confidences=ids / 9, agreement=ids / 9, boxes=np.zeros((9, 4)),
                  points=[[[0, 0]]] * 9, sources=["sam2"] * 9)  # fmt: skip
    assert repr(few).endswith("1 c6, 1 c7, …>") and list(few[0].cutout(np.zeros((H, W, 3)))) == []


def test_the_picture(tmp_path, monkeypatch):
    image = np.full((H, W, 3), 90, np.uint8)
    result = segmentation(image=image)
    result.save(tmp_path / "a.png")
    expected = draw_segmentation(image, result)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), expected)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(result._repr_png_()))), expected)
    shown = []
    monkeypatch.setattr(Image.Image, "show", lambda picture: shown.append(np.asarray(picture)))
    result.show()
    assert np.array_equal(shown[0], expected)
    Image.fromarray(image).save(tmp_path / "image.png")
    result = segmentation(image_path=str(tmp_path / "image.png"))  # as read from JSON
    assert np.array_equal(result.picture(), expected)
    lost = segmentation(image_path=None)
    assert lost._repr_png_() is None and np.array_equal(lost.picture(image), expected)
    for call in (lost.picture, lost.show, lambda: lost.save(tmp_path / "b.png")):
        with pytest.raises(ValueError, match=r"does not know its image; give it: image=\.\.\."):
            call()
    with pytest.raises(FileNotFoundError, match="not found"):
        segmentation().save(tmp_path / "b.png")
    with pytest.raises(ValueError, match="its name must end in"):
        lost.save(tmp_path / "b.pdf", image)
    with pytest.raises(ValueError, match=r"image must have shape \(4, 6, 3\), got \(6, 4, 3\)"):
        segmentation(image=np.zeros((W, H, 3), np.uint8))
    assert not (tmp_path / "b.png").exists()


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
