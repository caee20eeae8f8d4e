"""supervision's detections, and its readers of data sets, where it is installed."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from pipeline.exports.export import Export

from .samples import NAMES, H, W, all_masks, iou, result


def test_what_it_is_given(monkeypatch):
    fake = SimpleNamespace(Detections=lambda **fields: fields)
    monkeypatch.setitem(sys.modules, "supervision", fake)
    truth = all_masks()
    fields = truth.to_supervision()
    data = fields.pop("data")
    assert fields.keys() == {"xyxy", "mask", "confidence", "class_id"}
    assert fields["xyxy"] is truth.boxes and fields["mask"] is truth.masks
    assert fields["confidence"] is truth.scores and fields["class_id"] is truth.class_ids
    assert data["class_name"].tolist() == [truth.class_name(i) for i in range(len(truth))]
    assert data["class_confidence"] is truth.confidences
    assert result().to_supervision()["data"]["class_name"].dtype.kind == "U"  # no masks


def test_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ImportError, match=r"^to_supervision.* needs .*: pip install supervision$"):
        all_masks().to_supervision()


def test_supervision_itself(tmp_path):
    sv = pytest.importorskip("supervision", reason="supervision, optional, is not installed")
    truth = all_masks()
    detections = truth.to_supervision()
    assert len(detections) == len(truth) and len(detections[detections.confidence > 0.45]) == 4
    assert detections[1].data["class_name"].tolist() == [NAMES[1]]
    assert len(result().to_supervision()) == 0
    assert result().to_supervision().mask.shape == (0, H, W)

    with Export(tmp_path, ["coco", "yolo"], NAMES) as export:
        export.add(truth, "a.png")
    images = tmp_path / "yolo" / "images"
    images.mkdir()
    Image.new("RGB", (W, H)).save(images / "a.png")
    labels, names = tmp_path / "yolo" / "labels", tmp_path / "yolo" / "data.yaml"
    annotations = tmp_path / "coco" / "annotations.json"
    yolo = sv.DetectionDataset.from_yolo(str(images), str(labels), str(names), force_masks=True)
    coco = sv.DetectionDataset.from_coco(str(images), str(annotations), force_masks=True)
    for dataset, least in ((yolo, 0.95), (coco, 1)):
        ((_, _, found),) = dataset
        assert list(dataset.classes) == list(NAMES)
        assert found.class_id.tolist() == truth.class_ids.tolist()
        assert all(iou(a, b) >= least for a, b in zip(found.mask, truth.masks, strict=True))
        assert np.all(found.mask[0] == truth.masks[0])
