"""One pass over results writes all formats, whole or not at all."""

import argparse
import contextlib
import json
import tracemalloc

import pytest

from pipeline.exports import FORMATS, Format
from pipeline.exports.base import Exporter
from pipeline.exports.export import Export
from pipeline.exports.options import add_export_options, check_export_options
from pipeline.files.atomic import AtomicFile, write_atomically
from pipeline.result import Segmentation

from .samples import NAMES, all_masks, masks, result


def names(folder) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("[!.]*") if p.is_file())


def test_all_formats_of_several_images(tmp_path):
    for number, found in enumerate((all_masks(), result())):
        found.save_json(tmp_path / "results" / f"{number}.json")
    out = tmp_path / "out"
    with Export(out, [*FORMATS, "coco"], NAMES) as export:
        for number in range(2):
            found = Segmentation.load_json(tmp_path / "results" / f"{number}.json")
            export.add(found, f"{number}/a.jpg")
        export.add(all_masks())  # named after its picture
    stems = ["0/a", "1/a", "sofá"]
    assert names(out) == sorted(
        ["export.json", "coco/annotations.json", "yolo/data.yaml", "voc/class_names.txt"]
        + ["voc/ImageSets/Segmentation/all.txt"]
        + [f"yolo/labels/{stem}.txt" for stem in stems]
        + [f"labelme/{stem}.json" for stem in stems]
        + [f"voc/Segmentation{kind}/{stem}.png" for kind in ("Class", "Object") for stem in stems]
    )
    assert len(json.loads((out / "coco" / "annotations.json").read_text())["images"]) == 3
    assert export.paths == [out / "coco" / "annotations.json", out / "yolo" / "data.yaml",
                            out / "voc" / "class_names.txt", out / "labelme"]  # fmt: skip
    assert all(path.exists() for path in export.paths)
    # What a search for photographs leaves out.
    assert all((out / name / ".segment-words").is_file() for name in FORMATS)


class CsvExport(Exporter):
    """A format that another file could bring: boxes as a table."""

    START = "boxes.csv"

    def add(self, name: str, result: Segmentation) -> None:
        boxes = zip(result.class_ids, result.boxes.astype(int).tolist(), strict=True)
        lines = [f"{name},{self._names[i]},{','.join(map(str, box))}\n" for i, box in boxes]
        write_atomically(self.path, "".join(lines).encode())


def test_a_new_format_is_a_class_and_a_row(tmp_path, monkeypatch):
    monkeypatch.setitem(FORMATS, "csv", Format(f"{__name__}:CsvExport", "a table of boxes"))
    parser = argparse.ArgumentParser()
    add_export_options(parser)
    assert "csv, a table of boxes" in " ".join(parser.format_help().split())
    args = parser.parse_args(["--export", "csv", "coco", "--export-dir", str(tmp_path)])
    check_export_options(args)
    with Export(args.export_dir, args.export, NAMES) as export:
        export.add(result((masks()["column"], 0, 0.5), (masks()["pixel"], 3, 0.5)), "a/b.png")
    assert export.paths == [tmp_path / "csv" / "boxes.csv", tmp_path / "coco" / "annotations.json"]
    assert export.paths[0].read_text() == "a/b.png,dog,59,7,60,20\na/b.png,it's\\x,9,7,10,8\n"


def test_one_class_only(tmp_path):
    found = result((masks()["disk"], 0, 1), class_names=["only"])
    with Export(tmp_path, FORMATS, ["only"]) as export:
        export.add(found)
    assert (tmp_path / "yolo" / "data.yaml").read_text().endswith('names:\n  0: "only"\n')


def test_an_error_leaves_no_half_data_set(tmp_path):
    with pytest.raises(KeyboardInterrupt), Export(tmp_path, FORMATS, NAMES) as export:
        export.add(result((masks()["pixel"], 0, 0.5)))
        raise KeyboardInterrupt
    assert names(tmp_path) == [
        "export.json", "labelme/sofá.json", "voc/SegmentationClass/sofá.png",
        "voc/SegmentationObject/sofá.png", "yolo/labels/sofá.txt",
    ]  # fmt: skip


def test_refused(tmp_path):
    with pytest.raises(ValueError, match=r"unknown export formats \['pdf'\]; valid: coco, yolo"):
        Export(tmp_path, ["pdf"], NAMES)
    with pytest.raises(ValueError, match="unknown export formats"):
        Export(tmp_path, [], NAMES)
    found = result()
    with Export(tmp_path, ["yolo"], NAMES) as export:
        for name in ("../a.jpg", "/a.jpg", "..", "a/../../b.jpg"):
            with pytest.raises(ValueError, match="give a path inside the data set"):
                export.add(found, name)
        with pytest.raises(ValueError, match="cannot name files after ''"):
            export.add(result(image_path=None))
        export.add(found, "a.jpg")
        with pytest.raises(ValueError, match=r"a.png and a.jpg would both be exported as a; ren"):
            export.add(found, "a.png")
        with pytest.raises(ValueError, match=r"A.png and a.jpg would both be exported as A; ren"):
            export.add(found, "A.png")
        with pytest.raises(ValueError, match="found for the words cat, but this export is for dog"):
            export.add(result(class_names=["cat"]), "b.jpg")
    assert names(tmp_path) == ["export.json", "yolo/data.yaml", "yolo/labels/a.txt"]


def test_names_can_be_checked_before(tmp_path):
    export = Export(tmp_path / "new", ["coco"], NAMES)
    for names_, message in (
        (["a/b.jpg", "b.jpg", "b.v2.jpg"], None),
        (["a/b.jpg", "b.jpg", "a/b.png"], r"a/b.png and a/b.jpg would both be exported as a/b"),
        (["a.jpg", "a.jpg"], r"a.jpg and a.jpg would both"),
        (["../b.jpg"], "cannot name files after"),
    ):
        with pytest.raises(ValueError, match=message) if message else contextlib.nullcontext():
            export.check((name, f"pictures/{name}") for name in names_)
    assert not list(tmp_path.iterdir())


def test_memory_does_not_grow_with_the_images(tmp_path):
    found = result((masks()["disk"], 0, 0.5))
    with Export(tmp_path, ["coco"], NAMES) as export:
        export.add(found, "first.jpg")
        tracemalloc.start()
        for number in range(200):
            export.add(found, f"{number:04d}.jpg")
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert kept / 200 < 1000  # bytes an image: its name and size; a mask alone has 2400


def test_interrupted_while_it_is_made(tmp_path, monkeypatch):
    def stop(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(AtomicFile, "write", stop)
    with pytest.raises(KeyboardInterrupt), Export(tmp_path, FORMATS, NAMES) as export:
        export.add(result(), "a.png")
    assert names(tmp_path) == []
