"""Many images: names, what is written, what is not done twice, refused, lost or kept in memory."""

import csv
import dataclasses
import hashlib
import io
import json
import os
import shutil
import signal
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import pipeline.folder
from models.images import load_image
from models.protocols import Protocol
from models.vocabulary import Vocabulary
from pipeline.atomic import AtomicFile
from pipeline.folder import check_output, result_file, segment_folder
from pipeline.result import Segmentation, decode_rle
from pipeline.segmenter import Segmenter
from tests.disk import full_disk

WORDS = ["cat,kitten", "dog"]


class FastSegmenter(Segmenter):
    """Dark pixels are a cat; no network is run, and no clock."""

    def __init__(self, before: Callable[[str], None] = lambda path: None, **settings) -> None:
        clip = nn.Linear(2, 1)
        nn.init.ones_(clip.weight)
        nn.init.zeros_(clip.bias)
        protocol = Protocol(
            name="fake", logit_scale=40, short_side=48, long_side=256, window=48, stride=24
        )
        segmentor = SimpleNamespace(
            clip=clip, preset=SimpleNamespace(name="fake"), protocol=protocol, upsampler="bilinear"
        )
        super().__init__(segmentor, None)
        self.config = dataclasses.replace(self.config, **settings)
        self.before = before
        self.seen: list[str] = []  # paths of the images that were segmented

    def segment(self, image, vocabulary, *, image_path, keep_probs=False) -> Segmentation:
        self.before(image_path)
        self.seen.append(image_path)
        mask = image[..., 0] < 128
        found = int(mask.any())
        return dataclasses.replace(
            Segmentation.empty(mask.shape, vocabulary.class_names, image_path=image_path),
            label_map=mask.astype(np.uint8),
            probs=np.stack([mask * 0.8, 0.2 + ~mask * 0.6]) if keep_probs else None,
            masks=mask[None][:found],
            class_ids=np.zeros(found, np.int64),
            scores=np.ones(found),
            confidences=np.ones(found),
            agreement=np.ones(found),
            boxes=np.zeros((found, 4)),
            points=(np.zeros((1, 2)),) * found,
            sources=("sam2",) * found,
            timings={"clip": 0.25, "masks": 0.5},
        )


def save_image(path: Path, dark: int, size: tuple[int, int] = (6, 9)) -> Path:
    """A white picture of `size` (H, W) whose first `dark` columns are dark."""
    pixels = np.full((*size, 3), 255, np.uint8)
    pixels[:, :dark] = 10
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """Four images; names that others would make equal. Pictures are drawn in no time."""
    monkeypatch.setattr(
        pipeline.folder,
        "save_picture",
        lambda path, image, result: pipeline.folder.write_atomically(path, image.tobytes()),
    )
    folder = tmp_path / "photos"
    for number, name in enumerate(("a.png", "b/a.png", "b/c.bmp", "b/c.PNG")):
        save_image(folder / name, number)
    return folder


NAMES = ["a", "b/a", "b/c.PNG", "b/c.bmp"]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def rows(output: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((output / "summary.csv").read_text(encoding="utf-8"))))


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


def die_at(write: int, monkeypatch) -> None:
    """Kill this process, without any warning, when it has written half of its n-th file."""
    count = 0
    whole = AtomicFile.write

    def write_half(file: AtomicFile, data: bytes) -> None:
        nonlocal count
        count += 1
        if count == write:
            whole(file, data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        whole(file, data)

    monkeypatch.setattr(AtomicFile, "write", write_half)


def test_killed_again_and_again(photos, tmp_path, monkeypatch):
    whole, out = tmp_path / "whole", tmp_path / "out"
    segment_folder(FastSegmenter(), photos, WORDS, whole, heatmaps=whole / "maps")
    deaths = 0
    while not (tmp_path / "out" / "summary.csv").exists():
        child = os.fork()
        if child == 0:
            try:
                # Also in the middle of an image, and while the summary is written.
                die_at((1, 3, 4, 5, 9)[min(deaths, 4)], monkeypatch)
                segment_folder(FastSegmenter(), photos, WORDS, out, heatmaps=out / "maps")
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL
            assert list((tmp_path / "out").rglob(".*.tmp"))
            deaths += 1
        assert deaths < 20
    assert deaths >= 4
    found, expected = contents(out), contents(whole)
    assert found.pop("maps/settings.json") != expected.pop("maps/settings.json")  # where out is
    assert found == expected and "maps/b/c.PNG/001_dog.png" in found


def assert_goes_on(photos: Path, output: Path, whole: Path) -> None:
    """The last two of four images are missing; the result is that of one run."""
    rest = FastSegmenter()
    segment_folder(rest, photos, WORDS, output)
    assert [Path(path).name for path in rest.seen] == ["c.PNG", "c.bmp"]
    segment_folder(FastSegmenter(), photos, WORDS, whole)
    assert contents(output) == contents(whole)


def test_ctrl_c(photos, tmp_path):
    def stop(path: str) -> None:
        if path.endswith("c.PNG"):
            raise KeyboardInterrupt

    output = tmp_path / "out"
    for overwrite, command in ((False, "same command"), (True, "same command without --overwrite")):
        with pytest.raises(KeyboardInterrupt) as raised:
            segment_folder(FastSegmenter(stop), photos, WORDS, output, overwrite=overwrite)
        assert str(raised.value) == f"2 of 4 images are done; the {command} goes on"
    assert_goes_on(photos, output, tmp_path / "whole")


def test_bad_images_do_not_stop_the_rest(photos, tmp_path):
    def burst(path: str) -> None:
        if path.endswith("c.PNG"):
            raise torch.OutOfMemoryError("CUDA out of memory")
        if path.endswith("c.bmp"):
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    good = (photos / "a.png").read_bytes()
    save_image(photos / "half.png", 2, (60, 90))
    (photos / "half.png").write_bytes((photos / "half.png").read_bytes()[:100])
    (photos / "empty.jpg").touch()
    (photos / "text.jpg").write_text("no picture")
    (photos / "link.png").symlink_to("nowhere.png")
    long = photos / ("x" * 251 + ".png")  # its JSON's name would be too long
    long.write_bytes(good)
    output = tmp_path / "out"
    outcomes = segment_folder(FastSegmenter(burst), [photos, photos / "gone.png"], WORDS, output)
    reasons = {Path(o.image).name: o.reason for o in outcomes if o.status == "failed"}
    for name, reason in {
        "half.png": "truncated",
        "empty.jpg": "is empty",
        "text.jpg": "is not an image",
        "link.png": "image not found",
        "gone.png": "image not found",
        long.name: "name too long",
        "c.PNG": "needs more memory than there is (9×6 pixels)",
        "c.bmp": "needs more memory than there is (9×6 pixels)",
    }.items():
        message = reasons.pop(name)
        assert reason in message and name.partition(".")[0] in message and "\n" not in message
    assert not reasons
    assert [o.image for o in outcomes if o.status == "done"] == [
        str(photos / "a.png"), str(photos / "b" / "a.png")
    ]  # fmt: skip
    assert [row["reason"] for row in rows(output)] == [o.reason for o in outcomes]
    assert not result_file(output, "pictures", "half").exists()
    (photos / "text.jpg").write_bytes(good)  # repaired
    again = FastSegmenter()
    segment_folder(again, photos, WORDS, output)
    assert [Path(path).name for path in again.seen] == ["text.jpg", "c.PNG", "c.bmp"]


def test_other_errors_are_not_hidden(photos, tmp_path, monkeypatch):
    def bug(path: str) -> None:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        segment_folder(FastSegmenter(bug), photos, WORDS, tmp_path / "out")


def test_a_full_disk_loses_nothing(photos, tmp_path):
    output = tmp_path / "out"
    save_image(photos / "b" / "c.PNG", 3, size=(300, 300))  # its picture is the largest file
    message = (
        rf"cannot write {output}/pictures/b/c\.PNG\.jpg: File too large; 2 of 4 images are done;"
    )
    with full_disk(200_000), pytest.raises(OSError, match=message):
        segment_folder(FastSegmenter(), photos, WORDS, output)
    assert not list(output.rglob(".*"))
    assert_goes_on(photos, output, tmp_path / "whole")


def test_files_that_others_made(photos, tmp_path):
    # A record that is JSON, but none of ours, is made anew; settings of that kind are refused.
    output = tmp_path / "out"
    segment_folder(FastSegmenter(), photos, WORDS, output)
    before = contents(output)
    for text in ("[]", '{"image": {"sha256": "0"}}', '{"image": {"sha256": "0"}, "masks": [1]}',
                 "[" * 100_000):  # fmt: skip
        result_file(output, "json", "a").write_text(text)
        again = FastSegmenter()
        segment_folder(again, photos, WORDS, output)
        assert len(again.seen) == 1 and contents(output) == before
    (output / "settings.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"settings\.json is damaged \(it holds a list, not"):
        segment_folder(FastSegmenter(), photos, WORDS, output)


def test_an_image_that_cannot_have_results(photos, tmp_path, monkeypatch):
    save_image(photos / ("n" * 251 + ".png"), 1)  # with ".json" the name is too long
    os.mkfifo(photos / "pipe.png")
    (photos / "self.png").symlink_to("self.png")
    outcomes = segment_folder(FastSegmenter(), photos, WORDS, tmp_path / "out")
    failed = [o.reason for o in outcomes if o.status == "failed"]
    assert len(failed) == 3 and len(outcomes) == 7
    for reason, words in zip(
        failed, ("File name too long", "is a pipe or a device", "not found"), strict=True
    ):
        assert words in reason

    def burst(path: Path) -> None:
        raise MemoryError

    monkeypatch.setattr(pipeline.folder, "load_image", burst)
    save_image(photos / "very\nnew.png", 1)
    outcomes = segment_folder(FastSegmenter(), photos / "very\nnew.png", WORDS, tmp_path / "out2")
    assert "very new.png' needs more memory than there is; shrink it" in outcomes[0].reason


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
    nn.init.zeros_(other_weights.segmentor.clip.weight)
    for segmenter, words, background, change in (
        (FastSegmenter(), ["cat"], None, 'vocabulary: [["cat", "kitten"], ["dog"]], now [["cat"]]'),
        (FastSegmenter(), WORDS, ["sky"], 'background: [], now ["sky"]'),
        (FastSegmenter(min_confidence=0.5), WORDS, None, "min_confidence: 0.7, now 0.5"),
        (
            FastSegmenter(),
            Vocabulary.parse(WORDS, not_words=["fox"]),
            None,
            'not_words: null, now [["fox"]]',
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
    other_weights.segmentor.device = "another"  # which device it was does not matter
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
