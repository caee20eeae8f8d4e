"""The second pass on predictions made by hand, and both passes in one call."""

import csv
import dataclasses
import io
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from models.protocols import PROTOCOLS, Protocol, listed
from models.sclip_segmentor import SCLIPSegmentor
from pipeline.datasets.voc import IGNORE, LABELS, VocDataset
from pipeline.evaluate import evaluate_on_pascal_voc
from pipeline.evaluation.arms import parse_arms
from pipeline.evaluation.predict import Failure, predict
from pipeline.evaluation.ranks import Ranks
from pipeline.evaluation.runner import ArmRunner
from pipeline.evaluation.score import image_table, results, score, scoring_protocol
from pipeline.result import encode_rle
from pipeline.segmenter import Segmenter

from .datasets.voc_folders import RANDOM_PROTOCOL, blocks, cut_short, write_prediction, write_voc

TRUTH = {
    "small": blocks((20, 10), (12, 10, 0, 20, 10)),
    "large": blocks((40, 60), (12, 0, 30, 40, 60), (IGNORE, 0, 29, 40, 31)),
}


@pytest.fixture
def dataset(tmp_path) -> VocDataset:
    return write_voc(tmp_path / "VOC2012", TRUTH)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Of three arms: always right, right on the small image, and blind."""
    for name, truth in TRUTH.items():
        right, nothing = truth % IGNORE, np.zeros_like(truth)
        for arm, labels in (
            ("blind", nothing), ("half", right if name == "small" else nothing), ("right", right)
        ):  # fmt: skip
            write_prediction(tmp_path / "predictions", arm, name, labels)
    return tmp_path / "predictions"


ARMS = ["blind", "half", "right"]


def test_scores_of_the_data_set(dataset, folder):
    scores, failed = score(dataset, ARMS, folder)
    assert failed == [] and list(scores) == ARMS
    found = results(dataset, scores, failed, resamples=50)
    for metric in ("mIoU", "boundary_IoU", "edge_mIoU", "mAcc", "aAcc"):
        assert found["arms"]["right"][metric] == 100
    # Void apart, the background has 100 + 1160 pixels, the dog 100 + 1160.
    assert found["arms"]["blind"]["mIoU"] == 25 and found["arms"]["blind"]["aAcc"] == 50
    background, dog = 100 * 1260 / (1260 + 1160), 100 * 100 / 1260
    assert found["arms"]["half"]["mIoU"] == round((background + dog) / 2, 4)
    assert found["arms"]["half"]["per_class"]["dog"] == round(dog, 4)
    assert found["images"] == {"listed": 2, "asked": 2, "scored": 2, "failed": []}
    assert found["labels"] == list(LABELS)


def test_differences_and_intervals(dataset, folder):
    scores, failed = score(dataset, ARMS, folder)
    found = results(dataset, scores, failed, resamples=50)
    assert list(found["differences"]) == ["half - blind", "right - blind", "right - half"]
    arms, differences = found["arms"], found["differences"]
    for pair, metrics in differences.items():
        later, earlier = pair.split(" - ")
        assert set(metrics) == {"mIoU", "boundary_IoU", "edge_mIoU"}
        for metric, interval in metrics.items():
            expected = arms[later][metric] - arms[earlier][metric]
            assert interval["difference"] == pytest.approx(expected, abs=2e-4)
            assert interval["low"] <= interval["difference"] <= interval["high"]
    assert differences["right - blind"]["mIoU"] == {"difference": 75, "low": 75, "high": 75}
    assert arms["right"]["mIoU_interval"] == [100, 100]
    low, high = arms["half"]["mIoU_interval"]
    assert (low, high) == (25, 100)  # resamples of one image alone
    assert "edge_mIoU_interval" in arms["half"] and "boundary_IoU_interval" in arms["half"]
    again = results(dataset, *score(dataset, ARMS, folder), resamples=50)
    assert json.dumps(again, allow_nan=False) == json.dumps(found)
    assert results(dataset, scores, failed, resamples=50, seed=1)["arms"].keys() == arms.keys()


def test_without_background(dataset, folder):
    write_prediction(folder, "spill", "small", np.full((20, 10), 12))
    write_prediction(folder, "spill", "large", np.full((40, 60), 12))
    scores, _ = score(dataset, [*ARMS, "spill"], folder, background=False)
    found = results(dataset, scores, [], resamples=5)["arms"]
    assert found["spill"]["mIoU"] == found["right"]["mIoU"] == found["spill"]["aAcc"] == 100
    assert found["blind"]["mIoU"] == 0 and found["blind"]["aAcc"] == 0
    assert found["half"]["mIoU"] == round(100 * 100 / 1260, 4)
    assert list(found["half"]["per_class"]) == list(LABELS[1:])
    assert np.sum(found["half"]["confusion"]) == 1260


def test_table_of_images(dataset, folder):
    masks = [{"label": 12, "score": 0.5, "source": "sam2", "points": [[0, 15]],
              "segmentation": encode_rle(TRUTH["small"] == 12)}]  # fmt: skip
    write_prediction(folder, "right", "small", TRUTH["small"], prompts=3, masks=masks)
    text = image_table(score(dataset, ["half", "right"], folder)[0])
    assert text.splitlines()[0] == "id,arm,mIoU,boundary_IoU,edge_mIoU,aAcc,prompts,masks"
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["id"], row["arm"]) for row in rows] == [
        ("small", "half"), ("small", "right"), ("large", "half"), ("large", "right")
    ]  # fmt: skip
    assert [float(row["mIoU"]) for row in rows] == [100, 100, 25, 100]
    assert [(row["prompts"], row["masks"]) for row in rows] == [
        ("", ""), ("3", "1"), ("", ""), ("", "")
    ]  # fmt: skip


def test_images_that_do_not_count(dataset, folder, caplog):
    full = results(dataset, *score(dataset, ARMS, folder))["arms"]["half"]
    cut_short(dataset.root / "SegmentationClass" / "large.png")
    scores, failed = score(dataset, ARMS, folder)
    assert [failure.id for failure in failed] == ["large"]
    assert "SegmentationClass/large.png" in failed[0].error and "\n" not in failed[0].error
    assert [record.getMessage() for record in caplog.records] == [f"large: {failed[0].error}"]
    found = results(dataset, scores, failed)
    assert found["images"]["scored"] == 1 and found["images"]["asked"] == 2
    assert found["images"]["failed"] == [{"id": "large", "error": failed[0].error}]
    assert found["arms"]["half"]["mIoU"] == 100 != full["mIoU"]


def test_what_the_first_pass_could_not_read_is_not_looked_for(dataset, folder):
    (folder / "half" / "small.png").unlink()
    gone = Failure("small", "gone")
    scores, failed = score(dataset, ARMS, folder, [gone])
    assert failed == [gone] and len(scores["right"].rows) == 1


def test_labels_of_another_size(dataset, folder):
    write_prediction(folder, "x", "small", TRUTH["small"])
    labels = dataset.root / "SegmentationClass"
    (labels / "small.png").write_bytes((labels / "large.png").read_bytes())
    scores, (failure,) = score(dataset, ARMS, folder)
    assert failure.id == "small" and "40×60" in failure.error and "20×10" in failure.error
    assert len(scores["right"].rows) == 1


def test_an_unreadable_image_has_no_predictions(dataset, folder):
    # Scored alone, the second pass is not told which images failed in the first.
    cut_short(dataset.image_path("small"))
    for arm in ARMS:
        for path in (folder / arm).glob("small.*"):
            path.unlink()
    scores, (failure,) = score(dataset, ARMS, folder)
    assert failure.id == "small" and "truncated" in failure.error
    assert len(scores["right"].rows) == 1
    (folder / "half" / "large.png").unlink()  # of an image that can be read
    with pytest.raises(FileNotFoundError, match=r"no prediction large.png of arm 'half' in "):
        score(dataset, ARMS, folder)


def test_nothing_can_be_read(dataset, folder):
    failed = [Failure("small", "is damaged"), Failure("large", "is gone")]
    with pytest.raises(ValueError) as caught:
        score(dataset, ARMS, folder, failed)
    assert str(caught.value) == "none of 2 images can be read; large: is gone"


def test_protocols():
    assert scoring_protocol("sclip-voc21", LABELS) is PROTOCOLS["sclip-voc21"]
    assert scoring_protocol(RANDOM_PROTOCOL, LABELS) is RANDOM_PROTOCOL
    named = {name: set(protocol.class_names) for name, protocol in PROTOCOLS.items()}
    fitting = [name for name, classes in named.items() if classes and classes <= set(LABELS)]
    assert "sclip-voc21" in fitting and "sclip-ade20k" not in fitting
    for protocol, name in (("open", "open"), (Protocol(name="mine", logit_scale=1), "mine")):
        with pytest.raises(ValueError) as caught:
            scoring_protocol(protocol, LABELS)
        expected = (
            f"protocol {name!r} does not name the classes of this data set; valid: "
            f"{listed(fitting)}"
        )
        assert str(caught.value) == expected
    with pytest.raises(ValueError, match="unknown protocol 'voc22'; valid: sclip-voc21"):
        scoring_protocol("voc22", LABELS)


# From here on, both passes.


@pytest.fixture(scope="module")
def noise(tmp_path_factory) -> VocDataset:
    truth = {
        "one": blocks((48, 70), (10, 0, 0, 30, 40), (IGNORE, 30, 0, 32, 40)),
        "two": blocks((60, 50), (12, 10, 0, 50, 30), (18, 0, 30, 60, 50)),
    }
    objects = {name: (labels > 0) + (labels > 12) * np.uint8(1) for name, labels in truth.items()}
    return write_voc(tmp_path_factory.mktemp("data") / "VOC2012", truth, objects)


@pytest.fixture(scope="module")
def of_benchmark(noise, random_segmenter, tmp_path_factory) -> dict:
    """What the benchmark says of arms."""
    folder, names = tmp_path_factory.mktemp("made"), ["bilinear", "loftup", "loftup+sam2"]
    segmenter = random_segmenter
    runner = ArmRunner(segmenter.dense, RANDOM_PROTOCOL, LABELS, config=segmenter.config)
    failed = predict(noise, runner, parse_arms(names), folder, Ranks(0, 1, torch.device("cpu")))
    return results(noise, *score(noise, names, folder, failed))["arms"]


KEYS = {
    "mIoU", "boundary_IoU", "edge_mIoU", "mAcc", "aAcc", "mIoU_interval", "boundary_IoU_interval",
    "edge_mIoU_interval", "per_class", "per_class_boundary", "per_class_accuracy", "sizes",
    "classes_averaged", "confusion", "images", "timings",
}  # fmt: skip


@pytest.mark.parametrize("arm", ["bilinear", "loftup", "loftup+sam2"])
def test_a_segmentor_scores_as_its_arm(
    arm, noise, of_benchmark, random_preset, random_segmenter, tmp_path, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    segmentor = {
        "bilinear": lambda: SCLIPSegmentor("cpu", preset=random_preset, verbose=False),
        "loftup": lambda: random_segmenter.dense,
        "loftup+sam2": lambda: random_segmenter,
    }[arm]()
    found = evaluate_on_pascal_voc(segmentor, noise.root, protocol=RANDOM_PROTOCOL)
    assert found.keys() == KEYS | ({"prompts"} if arm == "loftup+sam2" else set())
    for key, value in of_benchmark[arm].items():
        assert found[key] == value, key
    assert 0 < found["mIoU"] < 100 and found["mIoU_interval"][0] <= found["mIoU"]
    assert set(found["per_class"]) == set(LABELS) and found["per_class"]["aeroplane"] is None
    assert np.sum(found["confusion"]) == 48 * 70 - 80 + 60 * 50
    assert found["images"] == {"listed": 2, "asked": 2, "scored": 2, "failed": []}
    stages = ["clip", "text", "upsample", "classes"]
    if arm == "loftup+sam2":
        stages += ["prompts", "sam_image", "masks"]
        assert found["prompts"]["per_image"] > 1
    assert list(found["timings"]) == stages
    assert all(time["median"] >= 0 for time in found["timings"].values())
    json.dumps(found, allow_nan=False)
    assert list(tmp_path.iterdir()) == []  # nothing is kept
    dense = segmentor.dense if isinstance(segmentor, Segmenter) else segmentor
    assert dense.protocol.name == "random"  # its own again


def test_limit_split_and_protocols_without_background(noise, random_segmenter, tmp_path):
    listing = tmp_path / "mine.txt"
    listing.write_text("two\none\n")
    protocol = dataclasses.replace(RANDOM_PROTOCOL, background=())
    found = evaluate_on_pascal_voc(
        random_segmenter, str(noise.root), str(listing), protocol=protocol, limit=1
    )
    assert found["images"] == {"listed": 2, "asked": 1, "scored": 1, "failed": []}
    assert "background" not in found["per_class"]
    assert np.sum(found["confusion"]) == np.count_nonzero(noise.load_labels("two"))


def test_images_that_fail_are_told(noise, random_segmenter, tmp_path):
    truth = {name: noise.load_labels(name) for name in noise.ids}
    dataset = write_voc(tmp_path / "VOC2012", truth)
    cut_short(dataset.image_path("one"))
    found = evaluate_on_pascal_voc(random_segmenter, dataset.root, protocol=RANDOM_PROTOCOL)
    assert found["images"]["scored"] == 1 and found["sizes"] is None
    (failure,) = found["images"]["failed"]
    assert failure["id"] == "one" and "truncated" in failure["error"]
    cut_short(dataset.image_path("two"))
    with pytest.raises(ValueError, match=r"none of 2 images can be read; one: .*truncated"):
        evaluate_on_pascal_voc(random_segmenter, dataset.root, protocol=RANDOM_PROTOCOL)


def test_an_output_folder_is_continued(noise, random_segmenter, tmp_path, monkeypatch):
    images = []
    run = ArmRunner.run

    def counted(self, image, *arguments):
        images.append(image.shape[:2])
        return run(self, image, *arguments)

    monkeypatch.setattr(ArmRunner, "run", counted)
    dense, settings = random_segmenter.dense, {"protocol": RANDOM_PROTOCOL, "output": tmp_path}
    first = evaluate_on_pascal_voc(dense, noise.root, limit=1, **settings)
    assert images == [(48, 70)] and first["images"]["scored"] == 1
    both = evaluate_on_pascal_voc(dense, noise.root, **settings)
    assert images == [(48, 70), (60, 50)] and both["images"]["scored"] == 2
    assert evaluate_on_pascal_voc(dense, noise.root, **settings) == both  # timings, too
    assert len(images) == 2
    kept = {path.name for path in (tmp_path / "predictions" / "segmentor").iterdir()}
    assert kept == {"settings.json", "one.png", "one.json", "two.png", "two.json"}
    with pytest.raises(ValueError, match="were made with other settings"):
        evaluate_on_pascal_voc(random_segmenter, noise.root, **settings)
    sharper = dataclasses.replace(RANDOM_PROTOCOL, logit_scale=10)
    with pytest.raises(ValueError, match=r"protocol.logit_scale: 400, now 10"):
        evaluate_on_pascal_voc(dense, noise.root, protocol=sharper, output=tmp_path)


def test_bad_input(noise, random_segmenter, tmp_path):
    with pytest.raises(ValueError) as caught:
        evaluate_on_pascal_voc("vit-b16", noise.root)
    assert str(caught.value) == (
        "segmentor must be an SCLIPSegmentor (or a subclass) or a Segmenter, got str"
    )
    with pytest.raises(
        ValueError, match="does not name the classes of this data set; valid: sclip-voc21, -voc20"
    ):
        evaluate_on_pascal_voc(random_segmenter, noise.root, protocol="open")
    with pytest.raises(FileNotFoundError, match="VOC folder not found"):
        evaluate_on_pascal_voc(random_segmenter, tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no split 'test'"):
        evaluate_on_pascal_voc(random_segmenter, noise.root, "test")
    with pytest.raises(ValueError, match="limit must be at least 1 image, got 0"):
        evaluate_on_pascal_voc(random_segmenter, noise.root, limit=0)


def test_segmentors_of_ones_own(noise, random_preset, tmp_path):
    """`dense` may be overridden as a whole; `predict_dense` knows no protocol."""

    class Blind(SCLIPSegmentor):
        def dense(self, image, vocabulary, **settings):
            found = super().dense(image, vocabulary, **settings)
            found.labels[:] = len(vocabulary)  # all background
            return found

    class Other(SCLIPSegmentor):
        def predict_dense(self, *arguments, **settings):
            return super().predict_dense(*arguments, **settings)

    settings = {"preset": random_preset, "verbose": False}
    found = evaluate_on_pascal_voc(Blind("cpu", **settings), noise.root, protocol=RANDOM_PROTOCOL)
    assert found["per_class"]["background"] == found["aAcc"] < 100
    with pytest.raises(ValueError, match="Other overrides predict_dense, which knows no protocol"):
        evaluate_on_pascal_voc(Other("cpu", **settings), noise.root, protocol=RANDOM_PROTOCOL)


def test_clicks_on_the_background_count_also_without_background_words(tmp_path):
    truth = blocks((40, 60), (12, 0, 0, 20, 30))  # a dog, top left
    dataset = write_voc(tmp_path / "VOC2012", {"one": truth})
    mask = np.zeros((40, 60), bool)
    mask[:20] = True
    record = {
        "label": 12, "score": 0.9, "source": "sam2", "points": [[5, 5], [50, 5]],
        "segmentation": encode_rle(mask),
    }  # fmt: skip
    folder = tmp_path / "predictions"
    write_prediction(folder, "a", "one", np.full((40, 60), 12), prompts=1, masks=[record])
    scores, _ = score(dataset, ["a"], folder, background=False)
    found = scores["a"].summary()
    assert found["mIoU"] == found["aAcc"] == 100  # background is not scored, ...
    assert found["prompts"]["points_on_class"] == 50  # ... but it is no dog
    assert found["prompts"]["true_iou"] == 50


def test_truth_without_any_class(tmp_path):
    truth = {"one": blocks((20, 10), (IGNORE, 5, 0, 20, 10)), "two": blocks((10, 20))}
    dataset = write_voc(tmp_path / "VOC2012", truth)
    for name, labels in truth.items():
        write_prediction(tmp_path, "arm", name, labels % IGNORE)
    for background in (True, False):
        with pytest.raises(ValueError, match=r"no class occurs .* 0 and 255: .* numbers, 1…20$"):
            score(dataset, ["arm"], tmp_path, background=background)


def test_why_there_is_no_interval(tmp_path):
    truth, size = {}, (20, 10)
    for label in range(1, 7):  # each class in one image, and a wrong pixel of it in the next
        truth[f"i{label}"] = blocks(size, (label, 2, 0, 20, 10))
    dataset = write_voc(tmp_path / "VOC2012", truth)
    for label, (name, labels) in enumerate(truth.items(), 1):
        write_prediction(tmp_path, "none", name, np.zeros_like(labels))
        write_prediction(
            tmp_path, "arm", name, blocks(size, (label, 2, 0, 20, 10), (label % 6 + 1, 0, 0, 1, 1))
        )
    found = results(dataset, *score(dataset, ["none", "arm"], tmp_path), resamples=50)
    for place, interval in (
        (found["arms"]["arm"], found["arms"]["arm"]["mIoU_interval"]),
        (d := found["differences"]["arm - none"]["mIoU"], [d["low"], d["high"]]),
    ):
        reasons = [reason for key, reason in place.items() if key.endswith("interval_missing")]
        assert (interval == [None, None]) == any("6 images are too few" in r for r in reasons)
    assert found["arms"]["arm"]["mIoU_interval"] == [None, None]
    json.dumps(found)
