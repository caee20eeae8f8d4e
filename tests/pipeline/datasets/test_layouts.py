"""Readers of the usual data sets, on label files made by hand."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.protocols import get_protocol
from pipeline.datasets import DATASETS, find_root, open_dataset
from pipeline.datasets.base import Dataset
from pipeline.datasets.layouts import LAYOUTS
from pipeline.evaluation.score import scoring_protocol
from pipeline.files.label_png import write_index_png
from tests.pipeline.datasets.voc_folders import coloured_noise

SIZE = (2, 5)  # (H, W)
COCO = "000000000139"
CITY = "frankfurt_000000_000294"
ADE = "ADE_val_00000001"
# Data set → picture, label map, its ten numbers, the labels they mean.
PREPARED = {
    "context60": (
        "JPEGImages/2008_000002.jpg", "SegmentationClassContext/2008_000002.png",
        [0, 1, 2, 37, 59, 255, 0, 0, 58, 59], [0, 1, 2, 37, 59, 255, 0, 0, 58, 59],
    ),
    "coco_stuff": (
        f"images/val2017/{COCO}.jpg", f"annotations/val2017/{COCO}_labelTrainIds.png",
        [0, 1, 79, 80, 170, 255, 0, 0, 91, 5], [1, 2, 80, 81, 171, 255, 1, 1, 92, 6],
    ),
    "coco_object": (
        f"images/val2017/{COCO}.jpg", f"annotations/val2017/{COCO}_instanceTrainIds.png",
        [0, 1, 80, 0, 0, 255, 0, 3, 4, 5], [0, 1, 80, 0, 0, 255, 0, 3, 4, 5],
    ),
    "cityscapes": (
        f"leftImg8bit/val/frankfurt/{CITY}_leftImg8bit.png",
        f"gtFine/val/frankfurt/{CITY}_gtFine_labelTrainIds.png",
        [0, 1, 18, 255, 10, 11, 0, 0, 17, 2], [1, 2, 19, 255, 11, 12, 1, 1, 18, 3],
    ),
    "ade20k": (
        f"images/validation/{ADE}.jpg", f"annotations/validation/{ADE}.png",
        [0, 1, 13, 150, 149, 0, 1, 1, 2, 3], [0, 1, 13, 150, 149, 0, 1, 1, 2, 3],
    ),
}  # fmt: skip
# COCO's numbers have gaps: 12 (stop sign's neighbour) is the 12th thing, 91 the first stuff.
RAW = {
    "coco_stuff": (
        f"stuffthingmaps/val2017/{COCO}.png",
        [0, 10, 12, 89, 91, 181, 255, 13, 24, 26], [1, 11, 12, 80, 81, 171, 255, 13, 24, 25],
    ),
    "coco_object": (
        f"annotations/val2017/{COCO}.png",
        [0, 10, 12, 89, 91, 181, 255, 13, 24, 26], [1, 11, 12, 80, 0, 0, 0, 13, 24, 25],
    ),
    "cityscapes": (
        f"gtFine/val/frankfurt/{CITY}_gtFine_labelIds.png",
        [7, 8, 33, 0, 34 - 1, 26, 6, 9, 32, 3], [1, 2, 19, 255, 19, 14, 255, 255, 18, 255],
    ),
}  # fmt: skip


def write(root: Path, picture: str, label: str, numbers: list[int], size=SIZE) -> Path:
    """One picture with its label map, and Context's list."""
    (root / picture).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(coloured_noise(1, size)).save(root / picture)
    write_index_png(root / label, np.array(numbers, np.uint8).reshape(SIZE))
    if "Context" in label:
        listing = root / "ImageSets/SegmentationContext/val.txt"
        listing.parent.mkdir(parents=True, exist_ok=True)
        listing.write_text(Path(picture).stem + "\n")
    return root


def only(dataset: Dataset) -> tuple[str, list[int]]:
    (image_id,) = dataset.ids
    assert dataset.load_image(image_id).shape == (*SIZE, 3)
    labels = dataset.load_truth(image_id).labels
    assert labels.dtype == np.uint8 and labels.shape == SIZE
    return image_id, labels.ravel().tolist()


@pytest.mark.parametrize("name", PREPARED)
def test_prepared(name, tmp_path):
    picture, label, numbers, labels = PREPARED[name]
    dataset = open_dataset(name, write(tmp_path, picture, label, numbers))
    image_id, found = only(dataset)
    assert found == labels and dataset.ignore == 255 and not dataset.has_objects
    assert dataset.label_paths(image_id) == (tmp_path / label,)
    assert dataset.listed == 1 and dataset.labels[0] == "background"
    # The protocol's words are of these labels, and of their order.
    protocol = scoring_protocol(DATASETS[name].protocol, dataset.labels)
    assert protocol.class_names == dataset.labels[1:]


@pytest.mark.parametrize("name", RAW)
def test_downloaded(name, tmp_path):
    label, numbers, labels = RAW[name]
    assert only(open_dataset(name, write(tmp_path, PREPARED[name][0], label, numbers)))[1] == labels


def test_what_the_labels_mean(tmp_path):
    """Numbers known from the data sets' own documents."""
    labels = {name: ("background", *layout.classes) for name, layout in LAYOUTS.items()}
    raw = {n: LAYOUTS[n].places[-1].codes for n in ("coco_stuff", "cityscapes", "coco_object")}
    stuff, city = labels["coco_stuff"], labels["cityscapes"]
    for number, name in {0: "person", 12: "stopsign", 16: "cat", 89: "toothbrush", 91: "banner",
                         123: "grass", 156: "sky-other", 181: "wood"}.items():  # fmt: skip
        assert stuff[raw["coco_stuff"][number]] == name
    for number, name in {7: "road", 11: "building", 21: "vegetation", 24: "person",
                         33: "bicycle"}.items():  # fmt: skip
        assert city[raw["cityscapes"][number]] == name
    assert labels["coco_object"][raw["coco_object"][16]] == "cat"
    assert {n for n in range(182) if raw["coco_stuff"][n] < 0} == {
        11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90,
    }  # fmt: skip


def test_ade_and_context59_leave_zero_out():
    for name in ("ade20k", "context59", "voc20", "coco_stuff", "cityscapes"):
        assert get_protocol(f"sclip-{name}").background == ()
    for name in ("context60", "voc21", "coco_object"):
        assert get_protocol(f"sclip-{name}").background


@pytest.mark.parametrize(
    ("name", "number", "message"),
    [
        ("coco_stuff", 171, r"number 171, expected 0…170, 255: .* order of classes"),
        ("coco_object", 81, "number 81, expected 0…80, 255"),
        ("cityscapes", 19, "number 19, expected 0…18, 255"),
        ("ade20k", 151, "number 151, expected 0…150, 255"),
        ("context60", 60, "number 60, expected 0…59, 255"),
    ],
)
def test_numbers_of_another_kind(name, number, message, tmp_path):
    picture, label, numbers, _ = PREPARED[name]
    dataset = open_dataset(name, write(tmp_path, picture, label, [number, *numbers[1:]]))
    with pytest.raises(ValueError, match=message):
        dataset.load_truth(dataset.ids[0])


def test_a_gap_of_coco(tmp_path):
    label, numbers, _ = RAW["coco_stuff"]
    root = write(tmp_path, PREPARED["coco_stuff"][0], label, [11, *numbers[1:]])
    dataset = open_dataset("coco_stuff", root)
    with pytest.raises(ValueError, match="number 11, expected 0…10, 12…24, 26…27, 30…43"):
        dataset.load_truth(COCO)


NAMES = {
    "ade20k": ("objectInfo150.txt", "Idx\tRatio\tTrain\tVal\tStuff\tName\n",
               ["1\t0.1\t11664\t1172\t1\twall", "2\t0.1\t6046\t612\t1\tbuilding, edifice",
                "3\t0.08\t8265\t796\t1\tsky", "13\t0.02\t5075\t565\t0\tperson, individual"]),
    "context60": ("59_labels.txt", "", ["1: aeroplane", "2: bag", "59: wood"]),
    "coco_stuff": ("labels.txt", "0: unlabeled\n",
                   ["1: person", "10: traffic light", "12: street sign", "13: stop sign",
                    "92: banner", "182: wood"]),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_order_of_classes_is_noticed(name, tmp_path, caplog):
    file, head, lines = NAMES[name]
    root = write(tmp_path, *PREPARED[name][:3])
    (root / file).write_text(head + "\n".join(lines))
    with caplog.at_level(logging.WARNING):
        assert open_dataset(name, root).labels[1:] == LAYOUTS[name].classes
    assert not caplog.records
    # The first two classes change places.
    swapped = head + "\n".join(lines).replace("wall", "x").replace("building, edifice", "wall")
    swapped = swapped.replace("bag", "y").replace("aeroplane", "bag")
    swapped = swapped.replace("1: person", "1: bicycle")
    (root / file).write_text(swapped)
    with pytest.raises(ValueError, match=r"has the classes in another order than .*: label \d is"):
        open_dataset(name, root)


def test_another_spelling_is_told_not_refused(tmp_path, caplog):
    root = write(tmp_path, *PREPARED["context60"][:3])
    (root / "59_labels.txt").write_text("1: flying machine\n")
    with caplog.at_level(logging.WARNING):
        open_dataset("context60", root)
    assert "label 1 is 'flying machine', here 'aeroplane'" in caplog.text


def test_sizes_of_lists(tmp_path):
    """5,104 or 5,105 by source: either is right, others are told what was published."""
    root = write(tmp_path, *PREPARED["context60"][:3])
    listing = root / "ImageSets/SegmentationContext/val.txt"
    for count, official in ((5104, 5104), (5105, 5105), (1, 5104)):
        listing.write_text("".join(f"2008_{n:06d}\n" for n in range(count)))
        dataset = open_dataset("context60", root)
        assert (dataset.listed, dataset.official_size) == (count, official)
    listing = tmp_path / "mine.txt"
    listing.write_text("2008_000002\n")
    dataset = open_dataset("context60", root, str(listing))
    assert dataset.official_size is None and only(dataset)[0] == "2008_000002"
    ade = open_dataset("ade20k", write(tmp_path, *PREPARED["ade20k"][:3]))
    assert ade.official_size == 2000


def test_bad_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="folder of ADE20K-150 not found"):
        open_dataset("ade20k", tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"expected images/\{split\}/\{id\}.jpg with"):
        open_dataset("ade20k", tmp_path)
    picture, label, numbers, _ = PREPARED["cityscapes"]
    root = write(tmp_path, picture, label, numbers)
    with pytest.raises(FileNotFoundError, match="does not hold Cityscapes's split 'test'"):
        open_dataset("cityscapes", root, "test")
    with pytest.raises(ValueError, match="limit must be at least 1 image, got 0"):
        open_dataset("cityscapes", root, None, 0)
    write(tmp_path, picture, label, numbers, size=(5, 2))
    dataset = open_dataset("cityscapes", root)
    with pytest.raises(ValueError, match=r"is 2×5 pixels .* its image .* is 5×2"):
        dataset.load_truth(CITY)
    (tmp_path / label).unlink()
    with pytest.raises(FileNotFoundError, match="label map not found"):
        dataset.load_truth(CITY)


def test_where_data_sets_lie(tmp_path):
    (tmp_path / "VOCdevkit/VOC2010").mkdir(parents=True)
    (tmp_path / "coco_stuff164k").mkdir()
    assert find_root("context59", tmp_path) == tmp_path / "VOCdevkit/VOC2010"
    assert find_root("coco_object", tmp_path) == tmp_path / "coco_stuff164k"
    with pytest.raises(FileNotFoundError, match=r"cityscapes not found in .*: no cityscapes there"):
        find_root("cityscapes", tmp_path)
