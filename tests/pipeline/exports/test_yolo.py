"""YOLO's files, read by the format's definition: class, then x y pairs as shares of the image."""

import cv2
import numpy as np
import pytest

from pipeline.exports.yolo import YoloExport

from .samples import NAMES, H, W, all_masks, iou, result


def read(text: str) -> list[tuple[int, np.ndarray]]:
    """Class and mask of every line."""
    found = []
    for line in text.splitlines():
        class_id, *values = line.split()
        shares = np.array(values, np.float32).reshape(-1, 2)
        assert len(shares) >= 3 and shares.min() >= 0 and shares.max() <= 1
        canvas = np.zeros((H, W), np.uint8)
        cv2.fillPoly(canvas, [np.round(shares * (W, H)).astype(np.int32)], 1)
        found.append((int(class_id), canvas.astype(bool)))
    return found


def test_round_trip(tmp_path):
    export = YoloExport(tmp_path, NAMES)
    truth = all_masks()
    export.add("a/sofá.v2.jpg", truth)
    export.add("b.png", result())
    export.add("c.png", result((np.zeros((H, W), bool), 0, 0.5)))  # nothing to draw
    export.finish()
    export.discard()
    found = read((tmp_path / "labels" / "a" / "sofá.v2.txt").read_text())
    assert [class_id for class_id, _ in found] == truth.class_ids.tolist()
    shares = [iou(a, b) for (_, a), b in zip(found, truth.masks, strict=True)]
    assert np.sum(np.array(shares) == 1) >= 7 and min(shares) > 0.95  # two have distant parts
    assert (tmp_path / "labels" / "b.txt").read_text() == ""
    assert (tmp_path / "labels" / "c.txt").read_text() == ""


def test_names(tmp_path):
    names = [*NAMES, "one\u2028two\x7f\x85", "yes", "3"]
    export = YoloExport(tmp_path, names)
    export.finish()
    text = export.path.read_text(encoding="utf-8")
    assert text.startswith('train: images\nval: images\nnames:\n  0: "dog"\n')
    assert '4: "one\\U00002028two\\U0000007F\\U00000085"\n' in text
    yaml = pytest.importorskip("yaml", reason="PyYAML, which reads data.yaml, is not installed")
    assert yaml.safe_load(text) == {
        "train": "images", "val": "images", "names": dict(enumerate(names)),
    }  # fmt: skip
