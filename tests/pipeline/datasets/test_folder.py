"""Folders of images and label PNGs: lists, labels, and what is wrong in them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets import open_dataset
from pipeline.datasets.coco_stuff_27 import COCO_STUFF_27
from pipeline.files.label_png import write_index_png

H, W = 6, 9


def write_pair(root: Path, name: str, values: np.ndarray, size: tuple[int, int] = (H, W)) -> None:
    image, labels = root / "images" / f"{name}.png", root / "labels" / f"{name}.png"
    for path in (image, labels):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), 7, np.uint8)).save(image)
    write_index_png(labels, values.astype(np.uint8))


@pytest.fixture
def root(tmp_path):
    values = np.zeros((H, W))
    values[2:, 3:], values[0, 0] = 4, 255
    for name in ("train/b/2", "train/1", "val/1"):
        write_pair(tmp_path, name, values)
    return tmp_path


def test_lists_and_labels(root):
    train = open_dataset("folder", root, "train")
    assert train.ids == ("train/1", "train/b/2") and train.listed == 2
    assert train.labels == tuple(f"label {i}" for i in range(5))
    assert open_dataset("folder", root, "train", limit=1).ids == ("train/1",)
    assert open_dataset("folder", root, "val+train").ids == ("val/1", *train.ids)
    assert set(open_dataset("folder", root, "all").ids) == {"val/1", *train.ids}
    assert train.load_image("train/b/2").shape == (H, W, 3)
    truth = train.load_truth("train/b/2")
    assert truth.objects is None and truth.labels.shape == (H, W)
    assert truth.labels[0, 0] == train.ignore and (truth.labels == 4).sum() == 4 * 6


def test_names_of_the_labels(root):
    (root / "classes.txt").write_text("sky\nroad\ntree\ncar\npole\nbus\n")
    assert open_dataset("folder", root).labels[5] == "bus"
    (root / "classes.txt").write_text("sky\nroad\n")
    with pytest.raises(ValueError, match="value 4, expected 0…1 or 255"):
        open_dataset("folder", root).load_truth("val/1")
    (root / "classes.txt").write_text("sky\nsky\n")
    with pytest.raises(ValueError, match="none twice"):
        open_dataset("folder", root)


def test_bad_folders(root, tmp_path):
    with pytest.raises(FileNotFoundError, match="there: train, val, all"):
        open_dataset("folder", root, "test")
    with pytest.raises(FileNotFoundError, match="expected ROOT/images/SPLIT"):
        open_dataset("folder", tmp_path / "none")
    with pytest.raises(ValueError, match="at least 1 image"):
        open_dataset("folder", root, limit=0)
    write_pair(root, "odd/1", np.zeros((H, W)), size=(W, H))
    with pytest.raises(ValueError, match=r"is 6×9 pixels \(H×W\), but its image .* is 9×6"):
        open_dataset("folder", root, "odd").load_truth("odd/1")
    Image.new("RGB", (W, H)).save(root / "images" / "val" / "1.jpg")
    with pytest.raises(ValueError, match="rename one"):
        open_dataset("folder", root, "val")
    (root / "images" / "bare").mkdir()
    with pytest.raises(FileNotFoundError, match="no picture of 'bare'"):
        open_dataset("folder", root, "bare")


def test_coco_stuff_27(tmp_path):
    values = np.full((H, W), 255)
    values[0, :6] = 0, 2, 90, 91, 148, 181  # person, car, (no image has it), banner, road, wood
    for name in ("val2017/000000000139", "train2017/000000000009"):
        write_pair(tmp_path, name, values)
    (tmp_path / "labels").rename(tmp_path / "annotations")
    found = open_dataset("coco_stuff_27", tmp_path)
    assert found.ids == ("val2017/000000000139",) and len(found.labels) == 27
    labels = found.load_truth(*found.ids).labels
    names = [found.labels[label] for label in labels[0, :6]]
    assert names == ["person", "vehicle", "indoor", "textile", "ground", "solid"]
    assert (labels[1:] == found.ignore).all()
    numbers = sorted(n for group in COCO_STUFF_27.values() for n in group)
    assert numbers == list(range(182))


def test_more_labels_than_a_map_holds_are_refused(root):
    for count in (255, 256):
        names = "".join(f"name {n}\n" for n in range(count))
        (root / "classes.txt").write_text(names, encoding="utf-8")
        if count == 255:
            assert len(open_dataset("folder", root).labels) == 255
    with pytest.raises(ValueError, match="names 256 labels, expected at most 255"):
        open_dataset("folder", root)
