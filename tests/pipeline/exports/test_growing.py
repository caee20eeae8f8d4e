"""A data set grows over runs, or a run is refused; nothing is lost or gets another meaning."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from pipeline.exports import FORMATS, ExportSettings
from pipeline.exports.export import Export
from tests.disk import contents, full_disk

from .samples import NAMES, all_masks, masks, result


def run(
    folder: Path, *names: str, found=None, formats=FORMATS, classes=NAMES, **settings
) -> Export:
    """One run of pictures/NAME each."""
    found = found or result((masks()["disk"], 1, 0.5), class_names=classes)
    with Export(folder, formats, classes, ExportSettings(**settings)) as export:
        for name in names:
            object.__setattr__(found, "image_path", str(folder.parent / "pictures" / name))
            export.add(found, name)
    return export


@pytest.fixture
def out(tmp_path) -> Path:
    (tmp_path / "pictures").mkdir()
    for i, name in enumerate("abcdefgh"):
        Image.new("RGB", (9, 6), (20 * i, 0, 0)).save(tmp_path / "pictures" / f"{name}.png")
    return tmp_path / "out"


def test_images_are_added_and_replaced(out, capsys):
    run(out, "a.png", "b.png")
    run(out, "c.png", found=all_masks())
    two = result((masks()["row"], 3, 0.5), (masks()["pixel"], 0, 0.5))
    run(out, "b.png", found=two)
    coco = COCO(str(out / "coco" / "annotations.json"))
    assert {i: image["file_name"] for i, image in coco.imgs.items()} == {
        1: "a.png", 2: "b.png", 3: "c.png",
    }  # fmt: skip
    counts = [len(coco.getAnnIds(imgIds=[i])) for i in (1, 2, 3)]
    assert counts == [1, 2, len(all_masks())] and len(coco.anns) == sum(counts)
    for annotation, mask in zip(coco.loadAnns(coco.getAnnIds(imgIds=[2])), two.masks, strict=True):
        assert np.array_equal(coco.annToMask(annotation), mask)
    listing = (out / "voc" / "ImageSets" / "Segmentation" / "all.txt").read_text()
    assert listing == "a\nb\nc\n"
    assert len((out / "yolo" / "labels" / "b.txt").read_text().splitlines()) == 2
    before = contents(out)
    run(out, "b.png", found=two)
    assert {k: v for k, v in contents(out).items() if "coco" not in k} == {
        k: v for k, v in before.items() if "coco" not in k
    }
    again = COCO(str(out / "coco" / "annotations.json"))
    assert again.imgs == coco.imgs and again.anns == coco.anns
    capsys.readouterr()


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("state", [True, False])
def test_other_classes_are_refused(out, kind, state):
    run(out, "a.png", formats=[kind], classes=("cat", "dog"))
    if not state:  # each format knows by itself; LabelMe's files have the names
        (out / "export.json").unlink()
    before = contents(out)
    for classes in (("dog", "cat"), ("cat",), ("cat", "dog", "cow"), ("background", "cat", "dog")):
        found = result((masks()["disk"], 0, 0.5), class_names=classes)
        if kind == "labelme" and not state:
            continue
        with pytest.raises(ValueError, match=r"classes|is for cat, dog and cannot be continued"):
            run(out, "b.png", found=found, formats=[kind], classes=classes)
    assert contents(out) == before


def test_classes_are_fixed_by_a_run_that_stopped(out):
    with pytest.raises(KeyboardInterrupt), Export(out, ["yolo"], ["cat", "dog"]) as export:
        export.add(result(class_names=["cat", "dog"]), "a.png")
        raise KeyboardInterrupt
    with pytest.raises(ValueError, match="numbers of the classes would mean two things; choose"):
        Export(out, ["voc"], ["dog", "cat"])
    run(out, "b.png", formats=["yolo"], classes=("cat", "dog"))


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("export.json", b"{", "export.json is damaged"),
        ("export.json", b'{"images": 3}', "export.json is damaged"),
        ("coco/annotations.json", b"", "annotations.json is damaged"),
        ("coco/annotations.json", None, "annotations.json is damaged"),
        ("yolo/data.yaml", b"", "data.yaml is of other classes, or damaged"),
        ("voc/class_names.txt", b"dog\n", "class_names.txt is of other classes, or damaged"),
        ("voc/ImageSets/Segmentation/all.txt", b"a\nb", "all.txt is damaged"),
        ("voc/ImageSets/Segmentation/all.txt", b"a\nz\n", "all.txt is damaged"),
    ],
)
def test_damaged_files_are_refused(out, file, damage, message):
    run(out, "a.png", "b.png")
    path = out / file
    path.write_bytes(path.read_bytes()[:-30] if damage is None else damage)
    before = contents(out)
    with pytest.raises(ValueError, match=message):
        run(out, "c.png")
    assert contents(out) == before


def test_annotations_of_nothing_are_damage(out):
    run(out, "a.png", "b.png", formats=["coco"])
    path = out / "coco" / "annotations.json"
    good = json.loads(path.read_text())
    for key, value in (("image_id", 7), ("category_id", 9), ("id", 2), ("id", "x")):
        bad = json.loads(path.read_text())
        bad["annotations"][0][key] = value
        path.write_text(json.dumps(bad))
        with pytest.raises(ValueError, match=r"annotations.json is damaged"):
            run(out, "c.png", formats=["coco"])
        path.write_text(json.dumps(good))


def test_a_name_stands_for_one_picture(out):
    run(out, "a.png")
    pictures = out.parent / "pictures"
    (pictures / "more").mkdir()
    other = result(image_path=str(pictures / "b.png"))
    for name, path in (("a.png", "b.png"), ("a.jpg", "a.png"), ("A.png", "b.png")):
        with pytest.raises(ValueError, match=r"would replace .*a.png, exported earlier as a.png"):
            Export(out, FORMATS, NAMES).check([(name, pictures / path)])
        with pytest.raises(ValueError, match="rename one, or"), Export(out, FORMATS, NAMES) as e:
            object.__setattr__(other, "image_path", str(pictures / path))
            e.add(other, name)
    shutil.move(pictures / "a.png", pictures / "more" / "a.png")  # the same, elsewhere
    Export(out, FORMATS, NAMES).check([("a.png", pictures / "more" / "a.png")])


def test_a_run_beside_another_says_so(out):
    with (
        pytest.raises(ValueError, match=r"another run has written into .*; run this one again"),
        Export(out, ["coco"], NAMES) as export,
    ):
        export.add(result(), "a.png")
        run(out, "b.png", formats=["coco"])
    run(out, "a.png", formats=["coco"])
    images = json.loads((out / "coco" / "annotations.json").read_text())["images"]
    assert [image["file_name"] for image in images] == ["b.png", "a.png"]


def test_what_a_format_cannot_take_is_left_out_of_it_alone(out, caplog):
    many = result(*[(masks()["pixel"], 0, 0.5)] * 255)
    with Export(out, FORMATS, NAMES) as export:
        export.add(many, "many.png")
        export.add(result(), "line\nbreak.png")
        export.add(result(), f"{'long' * 70}.png")  # for the disk
        export.add(result(), "few.png")
    said = [line.split(":")[0] for line in export.left_out]
    assert said[:2] == ["many.png is left out of voc", "line\nbreak.png is left out of voc"]
    long = f"{'long' * 70}.png is left out of"
    assert said[2:] == [f"{long} {kind}" for kind in ("yolo", "voc", "labelme")]
    assert len(caplog.records) == 5
    images = json.loads((out / "coco" / "annotations.json").read_text())["images"]
    assert len(images) == 4
    assert (out / "voc" / "ImageSets" / "Segmentation" / "all.txt").read_text() == "few\n"
    assert sorted(p.name for p in (out / "yolo" / "labels").iterdir()) == [
        "few.txt", "line\nbreak.txt", "many.txt",
    ]  # fmt: skip
    assert (out / "yolo" / "data.yaml").exists()


def test_a_file_that_cannot_be_completed_does_not_stop_the_others(out):
    with pytest.raises(OSError, match=r"annotations\.json: File too large"), full_disk(6000):
        run(out, *[f"{name}.png" for name in "abcdefgh"], formats=["coco", "yolo", "voc"],
            found=result(*[(masks()["pixel"], 0, 0.5)] * 60))  # fmt: skip
    assert not any(path.suffix in (".json", ".tmp") for path in (out / "coco").iterdir())
    assert (out / "yolo" / "data.yaml").exists() and (out / "voc" / "class_names.txt").exists()


def test_names_with_spaces_of_all_kinds(out):
    names = ["v\u00a013.png", "two  spaces.png", "写真\u30001.png", "tail .png", " head.png"]
    with Export(out, ["voc"], [" a\u00a0 b ", "two\nlines"]) as export:
        for name in names:
            export.add(result(class_names=[" a\u00a0 b ", "two\nlines"]), name)
    listing = (out / "voc" / "ImageSets" / "Segmentation" / "all.txt").read_bytes().decode()
    assert listing.split("\n")[:-1] == [name[:-4] for name in names]
    classes = (out / "voc" / "class_names.txt").read_bytes().decode()
    assert classes == "background\n a\u00a0 b \ntwo lines\n"


@pytest.mark.parametrize("how", ["copy", "link"])
def test_yolo_with_pictures_and_a_split(out, how):
    first = [f"{name}.png" for name in "abcd"]
    run(out, *first, formats=["yolo"], yolo_images=how, yolo_val=0.4)
    yolo = out / "yolo"

    def split() -> dict[str, set[str]]:
        lists = {part: (yolo / f"{part}.txt").read_text().splitlines() for part in ("train", "val")}
        assert all((yolo / line).is_file() for lines in lists.values() for line in lines)
        return {part: set(lines) for part, lines in lists.items()}

    before = split()
    run(out, "e.png", "f.png", "g.png", "h.png", formats=["yolo"], yolo_images=how, yolo_val=0.4)
    after = split()
    assert all(before[part] <= after[part] and after[part] for part in before)
    assert sum(map(len, after.values())) == 8 and not after["train"] & after["val"]
    assert (yolo / "data.yaml").read_text().startswith("train: train.txt\nval: val.txt\nnames:\n")
    for name in first:
        placed, picture = yolo / "images" / name, out.parent / "pictures" / name
        assert placed.is_symlink() == (how == "link")
        assert placed.read_bytes() == picture.read_bytes() and (yolo / "labels").exists()
    with pytest.raises(ValueError, match=r"is split by val.txt: add --yolo-val SHARE"):
        Export(out, ["yolo"], NAMES)


def test_yolo_replaces_links_not_what_they_lead_to(out):
    picture = out.parent / "pictures" / "a.png"
    data = picture.read_bytes()
    run(out, "a.png", formats=["yolo"], yolo_images="link")
    run(out, "a.png", formats=["yolo"], yolo_images="copy")
    placed = out / "yolo" / "images" / "a.png"
    assert not placed.is_symlink() and placed.read_bytes() == picture.read_bytes() == data
    export = run(out, "zebra.png", formats=["yolo"], yolo_images="copy")  # there is none
    assert "zebra.png is left out of yolo" in export.left_out[0]
    assert (out / "yolo" / "data.yaml").read_text().startswith("train: images\nval: images\n")


def test_labels_are_where_readers_look_for_them(out):
    (out.parent / "pictures" / "images").mkdir()
    shutil.copy(out.parent / "pictures" / "a.png", out.parent / "pictures" / "images")
    run(out, "images/a.png", "b.png", formats=["yolo"], yolo_images="copy", yolo_val=0.5)
    # The last "images" of the path becomes "labels".
    assert (out / "yolo" / "images" / "labels" / "a.txt").exists()
    lists = [(out / "yolo" / f"{part}.txt").read_text() for part in ("train", "val")]
    assert sorted(lists) == ["./images/b.png\n", "./images/images/a.png\n"]
