"""Checking and converting data sets, on files made by hand."""

import numpy as np
import pytest
from scipy.io import savemat

from pipeline.datasets.layouts import CONTEXT
from pipeline.datasets.prepare import prepare
from pipeline.files.label_png import read_index_png, write_index_png
from scripts.prepare_dataset import main

from .test_layouts import CITY, COCO, PREPARED, RAW, SIZE, write


@pytest.mark.parametrize(
    ("name", "target", "numbers"),
    [
        (
            "coco_stuff", f"stuffthingmaps/val2017/{COCO}_labelTrainIds.png",
            [0, 10, 11, 79, 80, 170, 255, 12, 23, 24],
        ),
        (
            "coco_object", f"annotations/val2017/{COCO}_instanceTrainIds.png",
            [1, 11, 12, 80, 0, 0, 0, 13, 24, 25],
        ),
        (
            "cityscapes", f"gtFine/val/frankfurt/{CITY}_gtFine_labelTrainIds.png",
            [0, 1, 18, 255, 18, 13, 255, 255, 17, 255],
        ),
    ],
)  # fmt: skip
def test_converted_and_compared(name, target, numbers, tmp_path):
    label, raw, _ = RAW[name]
    root = write(tmp_path, PREPARED[name][0], label, raw)
    prepare(name, root, write=False)
    assert not (root / target).exists()
    check = prepare(name, root)
    assert read_index_png(root / target).ravel().tolist() == numbers
    assert any(": 1 written, 0 agree" in note for note in check.notes)
    assert len(check.problems) == 1 and "1 images, published are " in check.problems[0]
    assert any("0 written, 1 agree" in note for note in prepare(name, root).notes)
    # Two classes changed places in the prepared map: it no longer says what the raw one does.
    swap = {numbers[0]: numbers[1], numbers[1]: numbers[0]}
    wrong = np.array([swap.get(n, n) for n in numbers], np.uint8).reshape(SIZE)
    write_index_png(root / target, wrong)
    with pytest.raises(ValueError, match=r"holds classes in another order than .*pixel \(0, 0\)"):
        prepare(name, root)


def test_prepared_maps_alone_need_no_raw_ones(tmp_path):
    root = write(tmp_path, *PREPARED["coco_stuff"][:3])
    assert prepare("coco_stuff", root).problems == ["1 images, published are 5,000"]


def test_pictures_where_the_download_has_them(tmp_path):
    root = write(tmp_path, f"val2017/{COCO}.jpg", *RAW["coco_stuff"][:2])
    assert any(": 1 written, 0 agree" in note for note in prepare("coco_stuff", root).notes)
    assert (root / f"stuffthingmaps/val2017/{COCO}_labelTrainIds.png").is_file()


def test_context_from_matlab(tmp_path):
    label = PREPARED["context60"][1]
    root = write(tmp_path, *PREPARED["context60"][:3])
    (root / label).unlink()
    (root / "ImageSets/SegmentationContext/val.txt").unlink()
    (root / "ImageSets/Main").mkdir()
    (root / "ImageSets/Main/val.txt").write_text("2008_000002\n2008_000009\n")
    (root / "trainval").mkdir()
    values = np.array([[0, 7, 14, 21, 1], [2, 413, 7, 7, 459]], np.uint16)
    savemat(root / "trainval/2008_000002.mat", {"LabelMap": values})
    with pytest.raises(FileNotFoundError, match=r"label maps but no labels.txt"):
        prepare("context60", root)
    # Every seventh label is a class; the others are background.
    names = {7 * i: name for i, name in enumerate(CONTEXT.classes, 1)}
    lines = [f"{n}: {names.get(n, f'other {n}')}" for n in range(1, 460)]
    (root / "trainval/labels.txt").write_text("\n".join(lines))
    check = prepare("context60", root)
    assert read_index_png(root / label).tolist() == [[0, 1, 2, 3, 0], [0, 59, 1, 1, 0]]
    listing = root / "ImageSets/SegmentationContext/val.txt"
    assert listing.read_text() == "2008_000002\n"
    assert check.problems == ["1 images, published are 5,104 or 5,105"]
    lines[6] = "7: flying machine"
    (root / "trainval/labels.txt").write_text("\n".join(lines))
    with pytest.raises(ValueError, match="does not name aeroplane"):
        prepare("context60", root)


def test_missing_and_damaged(tmp_path, capsys):
    picture, label, numbers, _ = PREPARED["ade20k"]
    root = write(tmp_path, picture, label, numbers)
    write(tmp_path, picture.replace("0001", "0002"), label.replace("0001", "0002"), numbers)
    (root / label.replace("0001", "0002")).write_bytes(b"\x89PNG")
    write(tmp_path, picture.replace("0001", "0003"), label.replace("0001", "0003"), numbers)
    (root / label.replace("0001", "0003")).unlink()
    check = prepare("ade20k", root)
    assert check.problems[0] == "3 images, published are 2,000"
    assert check.problems[1].startswith("2 images or label maps are missing or damaged: ")
    assert any(note.startswith("144 classes do not occur: floor") for note in check.notes)
    assert main(["--dataset", "ade20k", "--root", str(root)]) == 1
    out, err = capsys.readouterr()
    assert "3 images in the list 'validation'" in out and err.count("to mend: ") == 2
    assert main(["--dataset", "ade20k", "--root", str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err.startswith("error: folder of ADE20K-150 not found")
    with pytest.raises(ValueError, match="unknown data set 'ade'; valid: voc21, voc20"):
        prepare("ade", root)
