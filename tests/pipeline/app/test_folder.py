"""Many images: names, what is written, what is not done twice, refused or kept in memory."""

import hashlib
import json
import os
import shutil
import weakref
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import nn

from models.images import load_image
from models.vocabulary import Vocabulary
from pipeline.app.folder import check_output, result_file, segment_folder
from pipeline.result import Segmentation, decode_rle
from tests.pipeline.app.folder_runs import NAMES, WORDS, FastSegmenter, contents, rows, save_image


def test_what_is_written(photos, tmp_path):
    output = tmp_path / "new" / "out"
    outcomes = segment_folder(FastSegmenter(), photos, WORDS, output)
    kinds = ("pictures", ".jpg"), ("labels", ".png"), ("json", ".json")
    files = {f"{kind}/{name}{ending}" for name in NAMES for kind, ending in kinds}
    assert contents(output).keys() == files | {"summary.csv", "settings.json"}
    paths = [photos / p for p in ("a.png", "b/a.png", "b/c.PNG", "b/c.bmp")]
    for path, name, dark in zip(paths, NAMES, (0, 1, 3, 2), strict=True):
        picture = result_file(output, "pictures", name).read_bytes()
        assert picture == load_image(path).tobytes()  # as the stand-in draws it
        labels = np.asarray(Image.open(result_file(output, "labels", name)))
        assert np.array_equal(labels, np.arange(9)[None].repeat(6, 0) < dark)
        data = json.loads(result_file(output, "json", name).read_bytes())
        digest = data["image"].pop("sha256")
        assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
        alone = FastSegmenter().segment(
            load_image(path), FastSegmenter().vocabulary(WORDS), image_path=str(path)
        )
        assert data == json.loads(json.dumps(alone.to_json_dict()))
        assert all((decode_rle(m["segmentation"]) == (labels == 1)).all() for m in data["masks"])
    table = rows(output)
    assert table == [
        {k: "" if v is None else str(v) for k, v in o._asdict().items()} for o in outcomes
    ]
    assert [row["image"] for row in table] == list(map(str, paths))
    assert [row["name"] for row in table] == NAMES
    assert {row["status"] for row in table} == {"done"} and table[0]["seconds"] == "0.75"
    assert [(row["masks"], row["classes"]) for row in table] == [("0", ""), *[("1", "cat")] * 3]


def test_nothing_is_done_twice(photos, tmp_path):
    first, again = FastSegmenter(), FastSegmenter()
    output = tmp_path / "out"
    outcomes = segment_folder(first, photos, WORDS, output)
    assert len(first.seen) == 4
    before = {p: p.stat().st_mtime_ns for p in output.rglob("*") if p.name != "summary.csv"}
    assert segment_folder(again, [photos], WORDS, str(output)) == outcomes
    save_image(photos / "b" / "new.png", 4)
    assert len(segment_folder(again, photos, WORDS, output)) == 5
    assert again.seen == [str(photos / "b" / "new.png")]
    after = {p: p.stat().st_mtime_ns for p in before if p.is_file()}
    assert after == {p: before[p] for p in after}
    result_file(output, "json", "b/a").write_text("{}")  # damaged since
    result_file(output, "json", "b/c.bmp").write_text('{"image": {')
    segment_folder(again, photos, WORDS, output)
    assert again.seen[1:] == [str(photos / "b" / name) for name in ("a.png", "c.bmp")]


def test_heat_maps(photos, tmp_path):
    output, maps = tmp_path / "out", tmp_path / "maps"
    segment_folder(FastSegmenter(), photos, WORDS, output, heatmaps=maps)
    files = [f"{name}/{file}" for name in NAMES for file in ("000_cat.png", "001_dog.png")]
    assert contents(maps).keys() == {*files, "settings.json"}
    cat, dog = (
        np.asarray(Image.open(maps / "b/c.PNG" / f)) for f in ("000_cat.png", "001_dog.png")
    )
    dark = np.arange(9)[None].repeat(6, 0) < 3
    assert np.array_equal(cat, dark * 204) and np.array_equal(dog, np.where(dark, 51, 204))
    before = contents(maps)

    again = FastSegmenter()
    segment_folder(again, photos, WORDS, output, heatmaps=str(maps))
    assert not again.seen
    (maps / "b/a/001_dog.png").unlink()
    segment_folder(again, photos, WORDS, output)  # nobody asks for any
    assert not again.seen
    segment_folder(again, photos, WORDS, output, heatmaps=maps)
    assert again.seen == [str(photos / "b/a.png")] and contents(maps) == before


def test_heat_maps_of_finished_images(photos, tmp_path):
    output, maps = tmp_path / "out", tmp_path / "out" / "maps"
    segment_folder(FastSegmenter(), photos, WORDS, output)
    before = contents(output)

    def stop(path: str) -> None:
        if path.endswith("c.PNG"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="2 of 4 images are done"):
        segment_folder(FastSegmenter(stop), photos, WORDS, output, heatmaps=maps)
    rest = FastSegmenter()
    segment_folder(rest, photos, WORDS, output, heatmaps=maps)
    assert [Path(path).name for path in rest.seen] == ["c.PNG", "c.bmp"]
    after = contents(output)
    assert before.items() <= after.items() and len(after) == len(before) + 9


def test_heat_maps_of_other_results(photos, tmp_path):
    output, maps = tmp_path / "out", tmp_path / "maps"
    segment_folder(FastSegmenter(), photos, WORDS, output, heatmaps=maps)
    before = contents(maps)
    for words, other, message in (
        (["cow"], tmp_path / "new", "the heat maps in .*maps were made with other settings .vocab"),
        (WORDS, tmp_path / "more", "(results: .*now .*); choose another --save-heatmaps"),
        (WORDS, maps, "--save-heatmaps .*maps is also --output"),
    ):
        with pytest.raises(ValueError, match=message):
            segment_folder(FastSegmenter(), photos, words, other, heatmaps=maps)
        assert contents(maps) == before
    for place, message in (
        (photos, "--save-heatmaps .*photos holds files that are no results"),
        (photos / "a.png", "need a folder for their results.*: give --save-heatmaps FOLDER"),
        (tmp_path / "new", "--save-heatmaps .*new holds other results"),
    ):
        with pytest.raises(ValueError, match=message):
            segment_folder(FastSegmenter(), photos, WORDS, output, heatmaps=place, overwrite=True)
    segment_folder(FastSegmenter(), photos, ["cow", "b"], output, heatmaps=maps, overwrite=True)
    assert {Path(p).name for p in contents(maps)} == {"000_cow.png", "001_b.png", "settings.json"}


def test_another_image_of_the_same_name(photos, tmp_path):
    output = tmp_path / "out"
    segment_folder(FastSegmenter(), photos, WORDS, output)
    before = contents(output)
    save_image(photos / "a.png", 5)
    outcomes = segment_folder(FastSegmenter(), photos, WORDS, output)
    assert [o.status for o in outcomes] == ["failed", "done", "done", "done"]
    for words in (f"'{photos / 'a.png'}' is not the image", f"{output}/json/a.json", "delete"):
        assert words in outcomes[0].reason
    after = contents(output)
    assert after.pop("summary.csv") != before.pop("summary.csv") and after == before
    shutil.move(photos, tmp_path / "moved")  # the same images elsewhere are the same
    save_image(tmp_path / "moved" / "a.png", 0)
    outcomes = segment_folder(FastSegmenter(), tmp_path / "moved", WORDS, output)
    assert {o.status for o in outcomes} == {"done"}


def test_other_settings_are_refused(photos, tmp_path):
    output = tmp_path / "out"
    segment_folder(FastSegmenter(), photos, WORDS, output)
    before = contents(output)
    other_weights = FastSegmenter()
    nn.init.zeros_(other_weights.networks.clip.weight)
    for segmenter, words, background, change in (
        (FastSegmenter(), ["cat"], None, 'vocabulary: [["cat", "kitten"], ["dog"]], now [["cat"]]'),
        (FastSegmenter(), WORDS, ["sky"], 'background: [], now ["sky"]'),
        (FastSegmenter(min_confidence=0.5), WORDS, None, "min_confidence: 0.7, now 0.5"),
        (
            FastSegmenter(),
            Vocabulary.parse(WORDS, not_words=["fox"]),
            None,
            'not_words: [], now [["fox"]]',
        ),
        (
            FastSegmenter(),
            Vocabulary.parse(WORDS, thresholds={"dog": 0.5}),
            None,
            "thresholds.dog: null, now 0.5",
        ),
        (other_weights, WORDS, None, "weights.clip: "),
    ):
        with pytest.raises(ValueError) as raised:
            segment_folder(segmenter, photos, words, output, background=background)
        message = str(raised.value)
        assert change in message and f"the results in {output} were made with" in message
        assert "--overwrite" in message and "\n" not in message
        assert contents(output) == before
    other_weights.networks.device = "another"  # which device it was does not matter
    segment_folder(FastSegmenter(), photos, WORDS, output)
    assert contents(output) == before


def test_overwrite_starts_over(photos, tmp_path):
    output = tmp_path / "out"
    segment_folder(FastSegmenter(), photos, WORDS, output)
    (output / "notes.txt").write_text("mine")
    (photos / "a.png").unlink()
    again = FastSegmenter()
    segment_folder(again, photos, ["dog"], output, overwrite=True)
    assert len(again.seen) == 3
    (output / "notes.txt").unlink()
    segment_folder(FastSegmenter(), photos, ["dog"], tmp_path / "new")
    found, expected = contents(output), contents(tmp_path / "new")
    # Without a.png at its top, the common folder is still the one that was given.
    assert found == expected and "json/b/a.json" in found and "json/a.json" not in found


def test_a_run_without_results_binds_nobody(photos, tmp_path):
    def interrupt(path: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        segment_folder(FastSegmenter(interrupt), photos, ["cow"], tmp_path / "out")
    assert len(segment_folder(FastSegmenter(), photos, WORDS, tmp_path / "out")) == 4


def test_folders_that_take_no_results(photos, tmp_path):
    (tmp_path / "file").touch()
    for output, message in (
        (tmp_path / "out.PNG", r"several images need a folder.* not .*out\.PNG.* --output FOLDER"),
        (tmp_path / "file", "file is a file"),
        (tmp_path / "file" / "out", "file is a file"),
        (photos, "holds files that are no results"),
    ):
        with pytest.raises(ValueError, match=message):
            segment_folder(FastSegmenter(), photos, WORDS, output)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".DS_Store").touch()
    check_output(tmp_path / "empty")
    if os.getuid():
        (tmp_path / "empty").chmod(0o500)
        with pytest.raises(ValueError, match="no permission"):
            check_output(tmp_path / "empty")


def test_memory_is_flat(photos, tmp_path):
    # What one image needs is gone when the next one comes.
    alive: list[weakref.ref] = []
    most = 0

    class Watched(FastSegmenter):
        def segment(self, image, vocabulary, **kwargs) -> Segmentation:
            nonlocal most
            most = max(most, sum(ref() is not None for ref in alive))
            result = super().segment(image, vocabulary, **kwargs)
            alive.extend(map(weakref.ref, (image, result, result.masks)))
            return result

    for number in range(50):
        (photos / f"{number}.png").write_bytes((photos / "b" / "a.png").read_bytes())
    assert len(segment_folder(Watched(), photos, WORDS, tmp_path / "out")) == 54
    assert len(alive) == 162 and most == 0
