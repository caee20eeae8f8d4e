"""pycocotools reads the file, and every mask is what it was."""

import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pipeline.exports.coco import CocoExport
from tests.disk import contents, full_disk

from .samples import NAMES, H, W, all_masks, masks, result


def test_round_trip(tmp_path, capsys):
    export = CocoExport(tmp_path, NAMES)
    first, last = all_masks(), result((masks()["parts"], 2, 0.75))
    empty = result()
    export.add("a/sofá.jpg", first)
    export.add("b.png", empty)
    export.add('c "d".png', last)
    assert not export.path.exists()
    export.finish()
    export.discard()
    assert [p.name for p in tmp_path.iterdir()] == ["annotations.json"]

    coco = COCO(str(export.path))
    coco.info()
    assert coco.getImgIds() == [1, 2, 3]
    files = [image["file_name"] for image in coco.loadImgs([1, 2, 3])]
    assert files == ["a/sofá.jpg", "b.png", 'c "d".png']
    assert all((i["height"], i["width"]) == (H, W) for i in coco.imgs.values())
    assert [coco.cats[i + 1]["name"] for i in range(len(NAMES))] == list(NAMES)
    assert sorted(coco.anns) == list(range(1, len(first) + 2))
    assert coco.getAnnIds(imgIds=[2]) == []
    for image_id, truth in ((1, first), (3, last)):
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=[image_id]))
        assert len(annotations) == len(truth)
        for index, annotation in enumerate(annotations):
            mask = truth.masks[index]
            assert np.array_equal(coco.annToMask(annotation), mask)
            assert annotation["area"] == mask.sum() and annotation["iscrowd"] == 0
            x0, y0, x1, y1 = truth.boxes[index]
            assert annotation["bbox"] == [x0, y0, x1 - x0, y1 - y0]
            assert annotation["category_id"] == truth.class_ids[index] + 1
            assert annotation["score"] == pytest.approx(truth.scores[index])

    keys = ("image_id", "category_id", "segmentation", "score")
    found = coco.loadRes([{k: a[k] for k in keys} for a in coco.anns.values()])
    scores = COCOeval(coco, found, "segm")
    scores.evaluate()
    scores.accumulate()
    scores.summarize()
    assert scores.stats[0] == pytest.approx(1)  # AP of the file against itself
    capsys.readouterr()  # pycocotools prints


def test_nothing_at_all(tmp_path):
    export = CocoExport(tmp_path, ["one"])
    export.finish()
    data = json.loads(export.path.read_text(encoding="utf-8"))
    assert data["images"] == data["annotations"] == []
    assert data["categories"] == [{"id": 1, "name": "one", "supercategory": ""}]


def test_a_full_disk_or_an_end_before_time(tmp_path):
    CocoExport(tmp_path, NAMES).finish()
    before = contents(tmp_path)
    export = CocoExport(tmp_path, NAMES)
    with full_disk(10), pytest.raises(OSError, match=r"annotations\.json: File too large"):
        export.add("a.jpg", all_masks())
        export.finish()
    export.discard()
    export = CocoExport(tmp_path, NAMES)
    export.add("a.jpg", all_masks())
    export.discard()
    assert contents(tmp_path) == before
