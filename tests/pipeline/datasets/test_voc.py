"""The reader of VOC's layout, on folders made by hand."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets.voc import CLASSES, IGNORE, LABELS, VocDataset
from pipeline.drawing.palette import voc_palette

SIZE = (3, 5)  # H ≠ W
LABEL = np.array([[0, 0, 15, 15, 255], [0, 20, 20, 15, 255], [0, 0, 20, 255, 255]], np.uint8)
OBJECT = np.array([[0, 0, 1, 1, 255], [0, 254, 254, 1, 255], [0, 0, 254, 255, 255]], np.uint8)


def save_palette(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.frombytes("P", values.shape[::-1], values.tobytes())
    image.putpalette(voc_palette().tobytes())
    image.save(path)


def make_voc(root: Path, ids: tuple[str, ...] = ("2007_000033", "2007_000042")) -> Path:
    for name in ids:
        (root / "JPEGImages").mkdir(parents=True, exist_ok=True)
        picture = np.full((*SIZE, 3), (200, 40, 90), np.uint8)
        Image.fromarray(picture).save(root / "JPEGImages" / f"{name}.jpg", quality=95)
        save_palette(root / "SegmentationClass" / f"{name}.png", LABEL)
        save_palette(root / "SegmentationObject" / f"{name}.png", OBJECT)
    write_list(root, "val", "".join(f"{name}\n" for name in ids))
    return root


def write_list(root: Path, name: str, text: str) -> Path:
    path = root / "ImageSets" / "Segmentation" / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def root(tmp_path) -> Path:
    return make_voc(tmp_path / "VOC2012")


def refusal(kind: type[Exception], function, *arguments, **options) -> str:
    """The one line of a refusal."""
    with pytest.raises(kind) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_classes_are_in_vocs_order():
    assert len(CLASSES) == 20 and list(CLASSES) == sorted(CLASSES)
    assert [LABELS[i] for i in (0, 1, 11, 15, 20)] == [
        "background", "aeroplane", "diningtable", "person", "tvmonitor"
    ]  # fmt: skip
    assert IGNORE == 255


def test_reads_what_is_in_the_files(root):
    data = VocDataset.open(root)
    assert data.ids == ("2007_000033", "2007_000042") and data.listed == 2 and data.has_objects
    name = data.ids[1]
    assert data.image_path(name) == root / "JPEGImages" / "2007_000042.jpg"
    image = data.load_image(name)
    assert image.shape == (3, 5, 3) and np.abs(image.astype(int) - (200, 40, 90)).max() <= 3
    assert data.image_size(name) == (3, 5)
    assert data.load_labels(name).dtype == np.uint8
    assert np.array_equal(data.load_labels(name), LABEL)
    assert np.array_equal(data.load_objects(name), OBJECT)
    truth = data.load_truth(name)
    assert np.array_equal(truth.labels, LABEL) and np.array_equal(truth.objects, OBJECT)


def test_without_objects(root):
    for path in (root / "SegmentationObject").iterdir():
        path.unlink()
    data = VocDataset.open(root)
    assert data.has_objects
    message = refusal(FileNotFoundError, data.load_objects, data.ids[0])
    assert "SegmentationObject/2007_000033.png" in message
    (root / "SegmentationObject").rmdir()
    data = VocDataset.open(root)
    assert not data.has_objects
    assert data.load_objects(data.ids[0]) is None and data.load_truth(data.ids[0]).objects is None


def test_pictures_may_be_png(root):
    folder = root / "JPEGImages"
    Image.fromarray(np.full((*SIZE, 3), 7, np.uint8)).save(folder / "2007_000042.png")
    data = VocDataset.open(root)
    assert data.image_path("2007_000042").suffix == ".jpg"
    (folder / "2007_000042.jpg").unlink()
    assert (data.load_image("2007_000042") == 7).all()
    assert data.image_size("2007_000042") == SIZE


def test_a_turned_photograph_has_the_size_of_its_upright_pixels(root):
    path = root / "JPEGImages" / "2007_000033.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (3, 5)).save(path, exif=exif)
    data = VocDataset.open(root)
    assert data.image_size("2007_000033") == data.load_image("2007_000033").shape[:2] == SIZE


def test_lists(root, tmp_path):
    write_list(root, "mine", "\n 2007_000042 \n\n\t2007_000033\r\n")
    data = VocDataset.open(root, "mine", limit=1)
    assert data.ids == ("2007_000042",) and data.listed == 2 and data.split == "mine"
    assert VocDataset.open(root, "mine", limit=9).ids == ("2007_000042", "2007_000033")
    own = tmp_path / "own.txt"
    own.write_bytes(b"\xef\xbb\xbf2007_000033")  # as Windows' editor writes it
    data = VocDataset.open(str(root), own)
    assert data.ids == ("2007_000033",) and data.split == str(own)


def test_a_list_of_ones_own_needs_no_image_sets(root, tmp_path):
    own = (root / "ImageSets" / "Segmentation" / "val.txt").rename(tmp_path / "own.txt")
    (root / "ImageSets" / "Segmentation").rmdir()
    assert VocDataset.open(root, own).listed == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (" \n\n", ["empty"]),
        ("a\nb\n\na\n", ["lists a twice", "lines 1 and 4"]),
        ("a\n../secret\n", ["line 2", "'../secret'"]),
        ("/etc/passwd\n", ["line 1"]),
        (".hidden\n", ["line 1"]),
        ("2007_000033  1\n", ["line 1", "2007_000033  1"]),  # a list of ImageSets/Main
    ],
)
def test_bad_lists_are_refused(root, text, words):
    path = write_list(root, "bad", text)
    message = refusal(ValueError, VocDataset.open, root, "bad")
    assert str(path) in message and all(word in message for word in words)


def test_a_list_that_is_no_text_is_refused(root, tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xff\xfe\x00\x81")
    assert "not a text file" in refusal(ValueError, VocDataset.open, root, path)


@pytest.mark.parametrize("limit", [0, -1])
def test_limit_is_positive(root, limit):
    assert f"got {limit}" in refusal(ValueError, VocDataset.open, root, limit=limit)


def test_unknown_splits_name_the_known_ones(root, tmp_path):
    write_list(root, "train", "a\n")
    message = refusal(FileNotFoundError, VocDataset.open, root, "test")
    assert "'test'" in message and "train, val" in message
    missing = tmp_path / "no.txt"
    assert str(missing) in refusal(FileNotFoundError, VocDataset.open, root, missing)


def test_folders_that_are_not_voc(root, tmp_path):
    message = refusal(FileNotFoundError, VocDataset.open, tmp_path / "nowhere")
    assert "nowhere" in message and "VOCdevkit/VOC2012" in message
    message = refusal(ValueError, VocDataset.open, root / "ImageSets")
    assert "no JPEGImages and no SegmentationClass" in message and "VOCdevkit/VOC2012" in message
    assert f"give '{root}'" in refusal(ValueError, VocDataset.open, tmp_path)
    outer = tmp_path / "outer"
    inner = make_voc(outer / "VOCdevkit" / "VOC2012")
    assert f"give '{inner}'" in refusal(ValueError, VocDataset.open, outer)


def test_official_size(root, tmp_path, monkeypatch):
    for split, size in {"train": 1464, "val": 1449, "trainval": 2913, "mine": None}.items():
        write_list(root, split, "a\n")
        assert VocDataset.open(root, split).official_size == size
    other = make_voc(tmp_path / "rendered")
    assert VocDataset.open(other).official_size is None
    (tmp_path / "link").symlink_to(root)
    assert VocDataset.open(tmp_path / "link").official_size == 1449
    monkeypatch.chdir(root)
    assert VocDataset.open(".").official_size == 1449


def test_sizes_must_agree(root):
    data = VocDataset.open(root)
    save_palette(root / "SegmentationObject" / "2007_000033.png", OBJECT[:, :4])
    message = refusal(ValueError, data.load_truth, "2007_000033")
    assert "SegmentationObject" in message and "3×4" in message and "3×5" in message
    save_palette(root / "SegmentationClass" / "2007_000033.png", LABEL.T.copy())
    message = refusal(ValueError, data.load_truth, "2007_000033")
    assert "SegmentationClass" in message and "5×3" in message and "3×5" in message


@pytest.mark.parametrize("value", [21, 254])
def test_values_that_are_no_labels(root, value):
    path = root / "SegmentationClass" / "2007_000033.png"
    labels = LABEL.copy()
    labels[2, 1] = value
    save_palette(path, labels)
    data = VocDataset.open(root)
    message = refusal(ValueError, data.load_labels, "2007_000033")
    assert str(path) in message and f"value {value}" in message
    with pytest.raises(ValueError, match=f"value {value}"):
        data.load_truth("2007_000033")


def test_missing_and_damaged_pictures(root):
    data = VocDataset.open(root)
    path = data.image_path("2007_000033")
    path.write_bytes(b"no picture")
    assert str(path) in refusal(ValueError, data.load_truth, "2007_000033")
    path.unlink()
    assert str(path) in refusal(FileNotFoundError, data.load_truth, "2007_000033")
    assert str(path) in refusal(FileNotFoundError, data.load_image, "2007_000033")
