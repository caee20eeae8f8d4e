"""The first pass: what it writes, what it does not do twice, and what it refuses."""

import copy
import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pipeline.record
from models.dense import DENSE_FIELDS, Dense
from pipeline.datasets.voc import CLASSES, LABELS, VocDataset
from pipeline.drawing.palette import voc_palette
from pipeline.evaluation.arms import parse_arms
from pipeline.evaluation.predict import predict, read_prediction
from pipeline.evaluation.ranks import Ranks
from pipeline.evaluation.runner import ArmRunner
from pipeline.evaluation.settings import recorded_settings
from pipeline.files.label_png import write_index_png
from pipeline.result import decode_rle

from ..datasets.voc_folders import (
    RANDOM_NAMES,
    RANDOM_PROTOCOL,
    blocks,
    coloured_noise,
    cut_short,
    write_voc,
)

SIZES = {"2007_1": (60, 101), "2007_2": (48, 70), "2007_3": (100, 64)}
ARMS = ("bilinear", "loftup+sam2")
ALONE = Ranks(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> VocDataset:
    truth = {name: blocks(size, (12, 5, 5, 30, 40)) for name, size in SIZES.items()}
    return write_voc(tmp_path_factory.mktemp("data") / "VOC2012", truth)


@pytest.fixture
def dataset(made, tmp_path) -> VocDataset:
    """A copy that a test may damage."""
    shutil.copytree(made.root, tmp_path / "VOC2012")
    return VocDataset.open(tmp_path / "VOC2012")


@pytest.fixture(scope="module")
def runner(random_segmenter) -> ArmRunner:
    segmenter = random_segmenter
    return ArmRunner(segmenter.dense, RANDOM_PROTOCOL, LABELS, config=segmenter.config)


def go(dataset: VocDataset, runner: ArmRunner, folder: Path, *arms: str, **settings):
    return predict(dataset, runner, parse_arms(arms or ARMS), folder, ALONE, **settings)


@pytest.fixture(scope="module")
def predicted(made, runner, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "predictions"
    assert go(made, runner, folder) == []
    return folder


@pytest.fixture
def folder(predicted, tmp_path) -> Path:
    """A copy of finished predictions."""
    return Path(shutil.copytree(predicted, tmp_path / "predictions"))


@pytest.fixture
def runs(monkeypatch) -> list[tuple[tuple[int, int], list[str]]]:
    """Size of the image and names of the arms of every run."""
    seen = []
    run = ArmRunner.run

    def counted(self, image, arms, truth=None):
        seen.append((image.shape[:2], [arm.name for arm in arms]))
        return run(self, image, arms, truth)

    monkeypatch.setattr(ArmRunner, "run", counted)
    return seen


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of every file."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def assert_refused(message: str, dataset, runner, folder, *arms) -> str:
    """One line that holds `message`; nothing is changed."""
    before = contents(folder)
    with pytest.raises(ValueError) as caught:
        go(dataset, runner, folder, *arms)
    text = str(caught.value)
    assert message in text and "\n" not in text and "--overwrite" in text
    assert contents(folder) == before
    return text


def test_files(made, runner, predicted):
    names = {f"{name}.{end}" for name in SIZES for end in ("png", "json")} | {"settings.json"}
    for arm in ARMS:
        assert {path.name for path in (predicted / arm).iterdir()} == names
    for name, size in SIZES.items():
        image = made.load_image(name)
        digest = hashlib.sha256(made.image_path(name).read_bytes()).hexdigest()
        for arm, prediction in runner.run(image, parse_arms(ARMS)):
            with Image.open(predicted / arm.name / f"{name}.png") as picture:
                assert picture.mode == "P" and picture.size == size[::-1]
                assert np.array_equal(np.reshape(picture.getpalette(), (-1, 3)), voc_palette())
            labels, record = read_prediction(predicted, arm.name, name)
            assert np.array_equal(labels, prediction.labels)
            assert set(np.unique(labels)) <= {0, *(CLASSES.index(n) + 1 for n in RANDOM_NAMES)}
            assert record["sha256"] == digest
            assert list(record["seconds"]) == list(prediction.seconds)
            if not arm.final:
                assert record.keys() == {"sha256", "seconds"}
                continue
            assert record["prompts"] == prediction.prompts > 0
            for one, other in zip(record["masks"], prediction.masks, strict=True):
                assert one.keys() == {"label", "score", "source", "points", "segmentation"}
                assert np.array_equal(decode_rle(one["segmentation"]), other["mask"])
                assert all(one[key] == other[key] for key in ("label", "score", "source", "points"))


def test_what_predictions_were_made_with(predicted):
    bilinear, final = (
        json.loads((predicted / arm / "settings.json").read_text(encoding="utf-8")) for arm in ARMS
    )
    assert bilinear["preset"] == "random" and bilinear["device"] == "cpu"
    assert bilinear["protocol"] == json.loads(json.dumps(dataclasses.asdict(RANDOM_PROTOCOL)))
    assert bilinear["upsampler"] == "bilinear" and "min_confidence" not in bilinear
    assert final["upsampler"] == "loftup" and final["min_confidence"] == 0.4
    # Only what the arm uses.
    assert bilinear["weights"].keys() == {"clip"}
    assert final["weights"].keys() == {"clip", "loftup", "sam2"}
    assert len(set(final["weights"].values())) == 3
    assert bilinear["threads"] == torch.get_num_threads() and bilinear["code"] == final["code"]
    assert {"torch", "python"} <= bilinear["versions"].keys()


def test_a_second_run_does_nothing(dataset, runner, folder, runs):
    before = contents(folder)
    assert go(dataset, runner, folder) == []
    assert runs == [] and contents(folder) == before


def test_only_what_is_missing_is_made_again(dataset, runner, folder, runs):
    before = contents(folder)
    (folder / "loftup+sam2" / "2007_2.png").unlink()
    (folder / "bilinear" / "2007_3.png").unlink()
    assert go(dataset, runner, folder) == []
    assert runs == [(SIZES["2007_2"], ["loftup+sam2"]), (SIZES["2007_3"], ["bilinear"])]
    after = contents(folder)
    assert after.keys() == before.keys()
    for name, (content, time) in before.items():
        if name.endswith(".png"):
            assert after[name][0] == content  # bit for bit
        if "2007_1" in name or name.endswith("settings.json"):
            assert after[name] == (content, time)  # untouched


def test_what_a_killed_process_left_is_removed(dataset, runner, folder):
    before = contents(folder)
    for arm in ARMS:
        (folder / arm / ".0123abcd.tmp").write_bytes(b"half a")
    go(dataset, runner, folder)
    assert contents(folder) == before


@pytest.mark.parametrize("write", ["write_atomically", "write_index_png"])
def test_stopped_between_two_files(write, dataset, runner, predicted, tmp_path, monkeypatch):
    folder, original = tmp_path / "new", getattr(pipeline.evaluation.predict, write)

    def stop(path, content):
        if path.stem == "2007_2":
            raise KeyboardInterrupt
        original(path, content)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pipeline.evaluation.predict, write, stop)
        go(dataset, runner, folder)
    # A PNG without its JSON would look finished.
    for png in folder.rglob("*.png"):
        assert png.with_suffix(".json").exists()
    assert go(dataset, runner, folder) == []
    for name in predicted.rglob("*.png"):
        assert (folder / name.relative_to(predicted)).read_bytes() == name.read_bytes()


def test_later_arms_and_images_join(dataset, runner, predicted, folder, runs):
    shutil.rmtree(folder / "bilinear")
    listing = dataset.root / "ImageSets/Segmentation/val.txt"
    listing.write_text("2007_1\n2007_2\n")
    for arm in ("loftup+sam2",):
        for end in ("png", "json"):
            (folder / arm / f"2007_3.{end}").unlink()
    kept = contents(folder)
    go(VocDataset.open(dataset.root), runner, folder)  # another arm, fewer images
    assert runs == [(SIZES["2007_1"], ["bilinear"]), (SIZES["2007_2"], ["bilinear"])]
    runs.clear()
    go(dataset, runner, folder)  # more images
    assert runs == [(SIZES["2007_3"], list(ARMS))]
    after = contents(folder)
    assert kept.items() <= after.items()
    for name, (content, _) in contents(predicted).items():
        assert name.endswith(".json") or after[name][0] == content


def test_overwrite(dataset, runner, folder, runs):
    before = contents(folder)
    write_index_png(folder / "bilinear" / "2007_1.png", np.zeros((3, 3), np.uint8))
    (folder / "bilinear" / "no_longer_listed.png").touch()
    (folder / "loftup+sam2" / "settings.json").write_text("{}")
    other = folder / "other"
    other.mkdir()
    (other / "mine.png").write_bytes(b"another arm's")
    assert go(dataset, runner, folder, overwrite=True) == []
    assert runs == [(size, list(ARMS)) for size in SIZES.values()]
    after = contents(folder)
    assert after.pop("other/mine.png")
    assert after.keys() == before.keys()
    for name in before:
        if name.endswith((".png", "settings.json")):
            assert after[name][0] == before[name][0]


def variant(runner: ArmRunner, **changes) -> ArmRunner:
    protocol = changes.pop("protocol", RANDOM_PROTOCOL)
    dense = runner.dense.with_config(**{k: v for k, v in changes.items() if k in DENSE_FIELDS})
    return ArmRunner(dense, protocol, LABELS, config=dataclasses.replace(runner.config, **changes))


def with_other_loftup(runner: ArmRunner) -> ArmRunner:
    """The same but for one of LoftUp's weights."""
    networks = copy.copy(runner.networks)
    networks._loaded, networks._made = dict(networks._loaded), {}
    loftup = networks._loaded["loftup"] = copy.deepcopy(networks.network("loftup"))
    with torch.no_grad():
        next(loftup.parameters()).view(-1)[0] += 1
    dense = Dense(networks, runner.dense.config)
    return ArmRunner(dense, RANDOM_PROTOCOL, LABELS, config=runner.config)


def test_other_settings_are_refused(dataset, runner, folder, monkeypatch):
    place = f"the predictions in {folder / 'loftup+sam2'} were made with other settings"
    other = variant(runner, min_confidence=0.3)
    text = assert_refused("(min_confidence: 0.4, now 0.3)", dataset, other, folder)
    assert place in text
    assert go(dataset, other, folder, "bilinear") == []  # which has no masks
    sharper = dataclasses.replace(RANDOM_PROTOCOL, logit_scale=401.0)
    other = variant(runner, protocol=sharper)
    assert_refused("(protocol.logit_scale: 400, now 401.0)", dataset, other, folder)

    other = with_other_loftup(runner)
    assert_refused("(weights.loftup: ", dataset, other, folder)
    assert go(dataset, other, folder, "bilinear") == []  # which does not use it

    other = variant(runner, attention="vanilla")
    assert_refused('(attention: "csa", now "vanilla")', dataset, other, folder, "bilinear")
    monkeypatch.setattr(pipeline.record, "code", lambda: "0123456789abcdef")
    assert_refused(', now "0123456789abcdef")', dataset, runner, folder, "bilinear")


def test_other_threads_are_refused(dataset, runner, folder):
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        message = f"(threads: {threads}, now {threads + 1})"
        assert_refused(message, dataset, runner, folder, "bilinear")
    finally:
        torch.set_num_threads(threads)


def test_a_refusal_claims_nothing_for_other_arms(dataset, runner, folder):
    # A new arm beside one that is refused must not be bound to the settings refused.
    other = variant(runner, min_confidence=0.3)
    with pytest.raises(ValueError, match="min_confidence"):
        go(dataset, other, folder, "none+sam2", "loftup+sam2")
    assert go(dataset, runner, folder, "none+sam2", "loftup+sam2") == []
    assert read_prediction(folder, "none+sam2", "2007_1")[0].shape == SIZES["2007_1"]


def test_settings_without_predictions_bind_nobody(dataset, runner, tmp_path):
    folder = tmp_path / "predictions"
    cut_short(dataset.image_path("2007_1"))
    first = dataclasses.replace(dataset, ids=("2007_1",))
    assert [failure.id for failure in go(first, runner, folder)] == ["2007_1"]
    assert (folder / "loftup+sam2" / "settings.json").exists()
    other = variant(runner, min_confidence=0.3)
    assert [failure.id for failure in go(dataset, other, folder)] == ["2007_1"]


def test_damaged_settings_are_refused(dataset, runner, folder):
    (folder / "bilinear" / "settings.json").write_text('{"preset": ')
    assert_refused_line(dataset, runner, folder, "settings.json is damaged")


def assert_refused_line(dataset, runner, folder, message):
    before = contents(folder)
    with pytest.raises(ValueError, match=message) as caught:
        go(dataset, runner, folder)
    assert "\n" not in str(caught.value) and contents(folder) == before


def test_predictions_of_unknown_origin_are_refused(dataset, runner, folder):
    (folder / "bilinear" / "settings.json").unlink()
    message = "bilinear holds predictions but no settings.json: nobody knows what they were made"
    assert_refused(message, dataset, runner, folder)


def test_another_image_of_that_name_is_refused(dataset, runner, folder):
    Image.fromarray(coloured_noise(9, SIZES["2007_2"])).save(dataset.image_path("2007_2"))
    text = assert_refused(
        "2007_2.png was predicted from another image or truth than", dataset, runner, folder
    )
    assert str(dataset.image_path("2007_2")) in text


def test_a_bound_is_refused_where_the_truth_has_changed(dataset, runner, tmp_path):
    folder = tmp_path / "new"
    assert go(dataset, runner, folder, "bilinear", "oracle-points") == []
    assert go(dataset, runner, folder, "bilinear", "oracle-points") == []
    labels = dataset.load_labels("2007_2")
    write_index_png(dataset.root / "SegmentationClass" / "2007_2.png", labels[::-1].copy())
    assert_refused("oracle-points/2007_2.png was pred", dataset, runner, folder, "oracle-points")
    assert go(dataset, runner, folder, "bilinear") == []  # which was not told it


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"a": 1}'])
def test_a_prediction_without_a_sound_record_is_made_again(dataset, runner, folder, runs, damage):
    record = folder / "bilinear" / "2007_2.json"
    before = read_prediction(folder, "bilinear", "2007_2")[0]
    record.write_text(damage) if damage else record.unlink()
    assert go(dataset, runner, folder) == []
    assert runs == [(SIZES["2007_2"], ["bilinear"])]
    labels, found = read_prediction(folder, "bilinear", "2007_2")
    assert np.array_equal(labels, before) and found.keys() == {"sha256", "seconds"}


def test_images_that_cannot_be_read(dataset, runner, predicted, tmp_path, caplog):
    cut_short(dataset.image_path("2007_1"))
    dataset.image_path("2007_3").unlink()
    folder = tmp_path / "new"
    failed = go(dataset, runner, folder)
    assert [failure.id for failure in failed] == ["2007_1", "2007_3"]
    assert "truncated" in failed[0].error and "2007_1.jpg" in failed[0].error
    assert failed[1].error.startswith("not found: ") and "2007_3.jpg" in failed[1].error
    assert all("\n" not in failure.error for failure in failed)
    assert [record.getMessage() for record in caplog.records] == [
        f"{failure.id}: {failure.error}" for failure in failed
    ]
    for arm in ARMS:
        names = {path.name for path in (folder / arm).iterdir()}
        assert names == {"2007_2.png", "2007_2.json", "settings.json"}
        same = (folder / arm / "2007_2.png", predicted / arm / "2007_2.png")
        assert same[0].read_bytes() == same[1].read_bytes()


def test_oracles_need_the_truth(dataset, runner, tmp_path):
    cut_short(dataset.root / "SegmentationClass" / "2007_2.png")
    assert go(dataset, runner, tmp_path / "new", "bilinear") == []
    (failed,) = go(dataset, runner, tmp_path / "new", "bilinear", "oracle-points")
    assert failed.id == "2007_2" and "SegmentationClass/2007_2.png" in failed.error
    labels, record = read_prediction(tmp_path / "new", "oracle-points", "2007_1")
    assert set(np.unique(labels)) <= {0, 12} and record["prompts"] == len(record["masks"]) == 1
    ((x, y),) = record["masks"][0]["points"]
    assert 5 <= x < 40 and 5 <= y < 30
    settings = json.loads((tmp_path / "new/oracle-points/settings.json").read_text())
    assert settings["oracle"] == "oracle-points"
    assert settings["weights"].keys() == {"sam2"}


class Rank(Ranks):
    """One of two processes, the other of which has nothing to say."""

    def gather(self, value):
        return [value] * self.world


def test_processes_share_the_images(dataset, runner, predicted, tmp_path):
    folder, arms = tmp_path / "new", parse_arms(ARMS)
    predict(dataset, runner, arms, folder, Rank(0, 2, torch.device("cpu")))
    assert sorted(p.stem for p in (folder / "bilinear").glob("*.png")) == ["2007_1", "2007_3"]
    predict(dataset, runner, arms, folder, Rank(1, 2, torch.device("cpu")))
    for arm in ARMS:
        for name in (*(f"{name}.png" for name in SIZES), "settings.json"):
            assert (folder / arm / name).read_bytes() == (predicted / arm / name).read_bytes()


def test_settings_on_record(dataset, runner, folder, monkeypatch):
    found = recorded_settings(folder, ARMS)
    assert found["arms"].keys() == set(ARMS)
    assert found["weights"].keys() == {"clip", "loftup", "sam2"}
    assert found["arms"]["loftup+sam2"]["final"]["min_confidence"] == 0.4
    assert found["preset"] == "random" and found["protocol"]["name"] == "random-voc"
    with pytest.raises(FileNotFoundError, match=r"no predictions of arm 'none' in .*score-only"):
        recorded_settings(folder, ["bilinear", "none"])
    # Another code's predictions stand beside these, but cannot be compared with them.
    monkeypatch.setattr(pipeline.record, "code", lambda: "0123456789abcdef")
    assert go(dataset, runner, folder, "none") == []
    with pytest.raises(ValueError, match=r"'bilinear' and 'none' in .* differ .*\(code\)"):
        recorded_settings(folder, ["bilinear", "none"])


def test_arms_of_other_weights_are_not_compared(dataset, runner, folder):
    other = with_other_loftup(runner)
    assert go(dataset, other, folder, "loftup") == []
    assert recorded_settings(folder, ["bilinear", "loftup"])["weights"].keys() == {"clip", "loftup"}
    with pytest.raises(ValueError, match=r"arm 'loftup' in .* other weights of loftup .*overwrite"):
        recorded_settings(folder, [*ARMS, "loftup"])


def test_reading_a_prediction(folder):
    with pytest.raises(FileNotFoundError) as caught:
        read_prediction(folder, "bilinear", "2007_9")
    assert str(caught.value) == (
        f"no prediction 2007_9.png of arm 'bilinear' in {folder / 'bilinear'}: "
        "run again without --score-only"
    )
    png = folder / "bilinear" / "2007_1.png"
    cut_short(png)
    with pytest.raises(ValueError, match="truncated or damaged") as caught:
        read_prediction(folder, "bilinear", "2007_1")
    assert str(caught.value).endswith(f"delete {png} and run again")
    (folder / "bilinear" / "2007_2.json").write_text("{")
    with pytest.raises(ValueError, match=r"2007_2.json is damaged.*delete .*2007_2.png and run"):
        read_prediction(folder, "bilinear", "2007_2")
