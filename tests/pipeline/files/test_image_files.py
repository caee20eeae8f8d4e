"""Files, folders and lists → images and the names of their results."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.files.image_files import find_images, is_several, mark_folder


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("p/b.jpg", "p/a.PNG", "p/q/a.tiff", "p/q/c.txt", "p/.hidden.jpg", "p/.git/x.png",
                 "p/out/pictures/a.jpg", "r/a.png", "r/it's «ü».webp", "e/readme.txt"):  # fmt: skip
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        (["p"], {"p/a.PNG": "a", "p/b.jpg": "b", "p/q/a.tiff": "q/a"}),
        (["p/"], {"p/a.PNG": "a", "p/b.jpg": "b", "p/q/a.tiff": "q/a"}),
        (["p/q"], {"p/q/a.tiff": "a"}),
        (["p/b.jpg", "p/a.PNG"], {"p/b.jpg": "b", "p/a.PNG": "a"}),  # in the order given
        (["p/q", "r"], {"p/q/a.tiff": "p/q/a", "r/a.png": "r/a", "r/it's «ü».webp": "r/it's «ü»"}),
        (["p/q/../b.jpg", "p/b.jpg", "./p/b.jpg"], {"p/q/../b.jpg": "b"}),  # once
        (["p/b.jpg", "p/q"], {"p/b.jpg": "b", "p/q/a.tiff": "q/a"}),
        (["p/b.jpg", "p/gone"], {"p/b.jpg": "b", "p/gone": "gone"}),  # shows when it is read
        (["p/b.jpg", "p/" + "n" * 300], {"p/b.jpg": "b", "p/" + "n" * 300: "n" * 300}),
        # Equal but for the ending, or for case; and one that is called like another in full.
        (["x/a.jpg", "x/b.jpg", "x/a.png"],
         {"x/a.jpg": "a.jpg", "x/b.jpg": "b", "x/a.png": "a.png"}),
        (["A.jpg", "a.png"], {"A.jpg": "A.jpg", "a.png": "a.png"}),
        (["a.jpg", "a.png", "a.jpg.png"],
         {"a.jpg": "a.jpg", "a.png": "a.png", "a.jpg.png": "a.jpg.png"}),
        (["a", "a.png"], {"a": "a", "a.png": "a.png"}),
        (["a.jpg", "a.jpg.jpg"], {"a.jpg": "a", "a.jpg.jpg": "a.jpg"}),
        (["p/*.[jP]*"], {"p/a.PNG": "a", "p/b.jpg": "b"}),
        (["p\\q\\*.tif?"], {"p/q/a.tiff": "a"}),
        (["**/*.*[gf]"], {"p/b.jpg": "p/b", "p/q/a.tiff": "p/q/a",
                          "r/a.png": "r/a"}),
        (["x[1].jpg"], {"x[1].jpg": "x[1]"}),
        (["v1.2.jpg", "v1.3.jpg"], {"v1.2.jpg": "v1.2", "v1.3.jpg": "v1.3"}),
    ],
)  # fmt: skip
def test_names(entries, expected, here):
    images = find_images(entries, Path("p/out"))
    assert {str(image.path): image.name for image in images} == expected
    absolute = find_images([here / entry for entry in entries], here / "p" / "out")
    assert [image.name for image in absolute] == list(expected.values())


def test_a_list(here):
    text = "\ufeff# mine\r\np/b.jpg\n\n  r/it's «ü».webp  \n"
    text += "# b\ufeffp/q\n\ufeff# c\n\ufeff\ufeffgone.png\n"
    Path("list.txt").write_text(text, encoding="utf-8", newline="")
    images = find_images(["@list.txt", "p/b.jpg"], Path("out"))
    assert [str(i.path) for i in images] == [
        "p/b.jpg", "r/it's «ü».webp", "p/q/a.tiff", "gone.png"
    ]  # fmt: skip
    assert [i.name for i in images] == ["p/b", "r/it's «ü»", "p/q/a", "gone"]


@pytest.mark.parametrize(
    ("entries", "error", "message"),
    [
        (["e"], ValueError, r"the folder 'e' holds no image \(\.jpg, "),
        (["p", ""], ValueError, "the image path is empty"),
        (["@"], ValueError, "'@' must name a text file with one image path per line"),
        (["@p"], ValueError, "'@p' must name a text file"),
        (["@gone.txt"], FileNotFoundError, "image list not found: 'gone.txt'"),
        (["@~nobody-here/x"], FileNotFoundError, "image list not found: '~nobody-here/x'"),
        (["@e/readme.txt"], ValueError, "image list 'e/readme.txt' names no image"),
        (["@latin"], ValueError, "'latin' is not UTF-8 text"),
        (["p/b.jpg", "p/out/pictures/a.jpg"], ValueError, "a.jpg' is inside --output"),
        (["p/out/pictures"], ValueError, "pictures' is inside --output"),
        (["p/out"], ValueError, "'p/out' is inside --output"),
        (["p/gone*.jpg"], FileNotFoundError, r"no image fits 'p/gone\*.jpg'; check the pattern"),
    ],
)
def test_refused(entries, error, message, here):
    Path("latin").write_bytes("é.png".encode("latin-1"))
    with pytest.raises(error, match=message) as raised:
        find_images(entries, Path("p/out"))
    assert "\n" not in str(raised.value)


def test_heat_maps_are_no_images(here):
    without = find_images(["p"], Path("p/out"), Path("p/q"))
    assert [i for i in find_images(["p"], Path("p/out")) if "q/" not in i.name] == without
    with pytest.raises(ValueError, match="'p/q' is inside --save-heatmaps"):
        find_images(["p", "p/q"], Path("p/out"), Path("p/q"))


def test_one_or_several(here):
    one = ["p/b.jpg"], ["gone"], ["p/q/c.txt"], [""]
    several = ["p"], ["@list"], ["a", "b"], ["a", "a"]
    assert [is_several(x) for x in one] == [False] * 4
    assert [is_several(x) for x in several] == [True] * 4


def test_links_in_a_circle_do_not_go_round(here):
    Path("p/again").symlink_to("..")
    Path("p/self.png").symlink_to("self.png")
    Path("p/x.png").mkdir()  # called like an image, but a folder
    Path("p/x.png/y.png").touch()
    names = [image.name for image in find_images(["p"], Path("p/out"))]
    assert names == ["a", "b", "self", "q/a", "x.png/y"]


def test_a_name_that_looks_like_a_pattern(here):
    Path("p/*.jpg").touch()
    assert [str(i.path) for i in find_images(["p/*.jpg"], Path("out"))] == ["p/*.jpg"]
    assert not is_several(["p/*.jpg"]) and is_several(["p/*.PNG"]) and not is_several(["p[2].jpg"])


def test_pictures_of_kinds_that_are_not_read(here, caplog, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for name in ("a.JFIF", "b.jpe", "c.gif", "d.avif", "e.heic", "f.jp2", "g.CR2", "h.txt"):
        Path("e", name).touch()
    left_out: list[Path] = []
    images = find_images(["e"], Path("out"), left_out=left_out)
    assert [i.name for i in images] == ["a", "b", "c", "d"]
    assert [path.name for path in left_out] == ["e.heic", "f.jp2", "g.CR2"]
    (line,) = caplog.messages
    assert "e/e.heic, e/f.jp2, e/g.CR2" in line and "pip install pillow-heif" in line
    heif = SimpleNamespace(register_heif_opener=lambda: None)
    monkeypatch.setitem(sys.modules, "pillow_heif", heif)
    assert "e" in [i.name for i in find_images(["e"], Path("out"))]


def test_what_the_programs_wrote_is_no_photograph(here, caplog):
    mark_folder(Path("p/exports/voc"))
    for name in ("p/exports/voc/Class/a.png", "p/results/labels/a.png", "p/mine/a.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    Path("p/results/settings.json").write_text('{"preset": "tiny", "weights": {}}')
    Path("p/mine/settings.json").write_text('{"camera": 1}')
    expected = ["a", "b", "mine/a", "q/a"]
    assert [i.name for i in find_images(["p"], Path("p/out"))] == expected
    (line,) = caplog.messages
    assert line.endswith("earlier runs wrote them: p/results, p/exports/voc")
    assert len(find_images(["p/**/*.[Pp]*"], Path("p/out"))) == 2
    assert len(find_images(["p/results/labels"], Path("p/out"))) == 1  # named, it is meant
    with pytest.raises(ValueError, match="'p/results' holds what an earlier run wrote"):
        find_images(["p/results"], Path("p/out"))
