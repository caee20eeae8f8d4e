"""Many images, and what may happen on the way: kills, Ctrl-C, bad files, a full disk."""

import os
import signal
from pathlib import Path

import pytest
import torch

import pipeline.app.folder
from pipeline.app.folder import result_file, segment_folder
from pipeline.files.atomic import AtomicFile
from tests.disk import full_disk
from tests.pipeline.app.folder_runs import WORDS, FastSegmenter, contents, rows, save_image


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

    monkeypatch.setattr(pipeline.app.folder, "load_image", burst)
    save_image(photos / "very\nnew.png", 1)
    outcomes = segment_folder(FastSegmenter(), photos / "very\nnew.png", WORDS, tmp_path / "out2")
    assert "very new.png' needs more memory than there is; shrink it" in outcomes[0].reason
