"""Numbers of a comparison against hand-made label maps; both arms against separate runs."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from torch.nn import functional as F

import models.text
from models.presets import Preset
from models.upsamplers import load_upsampler
from models.weight_files import WeightsNotFoundError
from pipeline.app.compare import Comparison, compare, measure
from pipeline.config import PipelineConfig
from pipeline.result import Segmentation, decode_rle
from pipeline.segmenter import Segmenter

from ..test_segmenter import assert_equal

NAMES = ("cat", "dog", "unnamed")  # the last one is named like a key of the JSON
STAGES = {"clip": 2.0, "text": 1.0, "upsample": 0.5, "prompts": 0.25, "sam_image": 4.0}


def result(label_map, dense_map=None, *, timings=STAGES, prompts=4, names=NAMES) -> Segmentation:
    label_map = np.array(label_map, np.uint8)
    dense_map = label_map if dense_map is None else np.array(dense_map, np.uint8)
    empty = Segmentation.empty(label_map.shape, names, timings=timings)
    return dataclasses.replace(
        empty,
        label_map=label_map,
        dense_map=dense_map,
        settings={"prompts": prompts, "loftup_share": 0.5},
    )


def test_metrics_by_hand():
    without = result([[0, 0, 1, 1, 1], [0, 2, 2, 2, 2]], [[0] * 5, [0] * 5], prompts=128)
    with_loftup = result([[0, 0, 0, 1, 1], [0, 2, 2, 1, 1]], prompts=0, timings={"clip": 3.0})
    metrics = measure(without, with_loftup)
    final = metrics["agreement"]["final"]
    assert final["pixel_agreement"] == pytest.approx(70)
    # Nothing: 3 of 4. Cat: 2 of 5. Dog: 2 of 4. "unnamed" is in neither and does not count.
    assert final["IoU"]["unnamed"] == pytest.approx(75)
    assert final["IoU"]["classes"] == {"cat": pytest.approx(40), "dog": 50, "unnamed": None}
    assert final["mIoU"] == pytest.approx((75 + 40 + 50) / 3)
    dense = metrics["agreement"]["dense"]
    assert dense["pixel_agreement"] == pytest.approx(40)
    # One map sees only nothing: 4 pixels of it in the other; cat and dog are never shared.
    assert dense["IoU"]["unnamed"] == pytest.approx(40)
    assert dense["mIoU"] == pytest.approx(40 / 3)

    bilinear, loftup = metrics["arms"]["bilinear"], metrics["arms"]["loftup"]
    assert bilinear["area"]["final"] == {
        "unnamed": pytest.approx(30),
        "classes": {"cat": pytest.approx(30), "dog": pytest.approx(40), "unnamed": 0},
    }
    assert bilinear["area"]["dense"]["unnamed"] == 100
    assert loftup["area"]["final"]["classes"]["cat"] == pytest.approx(40)
    assert (bilinear["prompts"], bilinear["masks"], loftup["prompts"]) == (128, 0, 0)
    assert bilinear["prompt_reduction"] == 87.5 and loftup["prompt_reduction"] == 100
    assert bilinear["seconds"] == STAGES and bilinear["seconds_total"] == 7.75
    assert loftup["seconds_total"] == 3


def test_equal_results_agree():
    one = result([[1, 1, 0]])
    for agreement in measure(one, one)["agreement"].values():
        assert agreement["pixel_agreement"] == agreement["mIoU"] == 100


def test_the_order_of_the_arms_decides_nothing_about_agreement():
    rng = np.random.default_rng(0)
    one, other = (result(rng.integers(0, 4, (13, 29))) for _ in range(2))
    assert measure(one, other)["agreement"] == measure(other, one)["agreement"]


def test_results_that_cannot_be_compared():
    one = result([[0, 1]])
    with pytest.raises(ValueError, match=r"differ in their size: \(1, 2\) and \(2, 1\)"):
        measure(one, result([[0], [1]]))
    with pytest.raises(ValueError, match="differ in their class_names"):
        measure(one, result([[0, 1]], names=("cow",)))


def test_table_by_hand():
    without = result([[0, 0, 1, 1, 1], [0, 2, 2, 2, 2]], prompts=128)
    with_loftup = result([[0, 0, 0, 1, 1], [0, 2, 2, 1, 1]], prompts=0, timings={"clip": 3.0})
    metrics = measure(without, with_loftup)
    lines = Comparison(without=without, with_loftup=with_loftup, metrics=metrics).table()
    rows = [" ".join(line.split()) for line in lines.splitlines()]
    for row in (
        "bilinear LoftUp",
        "prompts 128 0",
        "LoftUp's share of the scores, % 0 50",
        "masks 0 0",
        "fewer prompts than the 32x32 grid, % 87.5 100.0",
        "seconds, clip 2.00 3.00",
        "seconds, sam_image 4.00 -",
        "seconds, total 7.75 3.00",
        "final maps 70.0 55.0",
        "nothing named 30.0 40.0 75.0 30.0 40.0 75.0",
        "cat 30.0 40.0 40.0 30.0 40.0 40.0",
        "unnamed 0.0 0.0 - 0.0 0.0 -",
    ):
        assert row in rows
    assert all(len(line) < 80 and line.isascii() for line in lines.splitlines())


# From here on with networks, of random weights.

WORDS = ["cow", "peacock,big bird", "sofa"]
EAGER = PipelineConfig(min_confidence=0.2, min_region_size=9)


@pytest.fixture(scope="module")
def preset(random_preset: Preset) -> Preset:
    """A large scale tells nearly equal features apart."""
    protocol = dataclasses.replace(random_preset.protocol, logit_scale=400, background=("bat",))
    return dataclasses.replace(random_preset, protocol=protocol)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (5, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((75, 50), Image.Resampling.BICUBIC))


def load(preset: Preset, use_loftup: bool) -> Segmenter:
    return Segmenter.from_preset(preset, device="cpu", use_loftup=use_loftup, config=EAGER)


@pytest.fixture(scope="module")
def segmenter(preset) -> Segmenter:
    return load(preset, True)


def test_both_arms_are_what_separate_runs_give(preset, segmenter, image, tmp_path):
    comparison = compare(segmenter, image, WORDS, image_path="there.png")
    for found, use_loftup in ((comparison.without, False), (comparison.with_loftup, True)):
        assert len(found) > 2 and found.image_path == "there.png"
        assert_equal(found, load(preset, use_loftup).segment(image, WORDS))
    one, other = comparison.without.dense_map, comparison.with_loftup.dense_map
    assert (one != other).any()
    agreement = comparison.metrics["agreement"]["dense"]["pixel_agreement"]
    assert agreement == pytest.approx(100 * (one == other).mean())
    assert comparison.metrics == measure(comparison.without, comparison.with_loftup)
    assert segmenter.config.upsampler == "loftup"  # left as it was

    comparison.save_json(tmp_path / "a" / "c.json")
    data = json.loads((tmp_path / "a" / "c.json").read_text(encoding="utf-8"))
    assert {k: data[k] for k in ("arms", "agreement")} == comparison.metrics
    for arm, found in comparison.results.items():
        told = data["results"][arm]
        assert told["settings"]["upsampler"] == arm
        assert ("loftup" in told["settings"]["weights"]) == (arm == "loftup")
        assert told["versions"]["torch"] and told["class_names"] == ["cow", "peacock", "sofa"]
        assert data["arms"][arm]["masks"] == len(told["masks"])
        for record, mask in zip(told["masks"], found.masks, strict=True):
            assert np.array_equal(decode_rle(record["segmentation"]), mask)


def test_every_network_encodes_once_and_counts_for_both(preset, image, monkeypatch):
    segmenter = load(preset, True)
    calls = []

    def count(owner: object, name: str) -> None:
        plain = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *a, **k: calls.append(name) or plain(*a, **k))

    clip = segmenter.networks.network("clip")
    segmenter.networks.batch = 99  # all windows in one call of the visual tower
    count(clip.visual.conv1, "forward")
    count(models.text, "encode_words")
    count(segmenter.sam.model, "forward_image")
    comparison = compare(segmenter, image, WORDS)
    assert sorted(calls) == ["encode_words", "forward", "forward_image"]
    one, other = comparison.without.timings, comparison.with_loftup.timings
    assert list(one) == list(other)
    for stage in ("clip", "text", "sam_image"):
        assert one[stage] == other[stage] > 1e-4
    assert other["upsample"] != one["upsample"]


def test_an_arm_without_prompts_does_not_pay_for_sam(segmenter, image):
    nothing = segmenter.with_config(min_region_size=50 * 75 + 1)
    metrics = compare(nothing, image, WORDS).metrics
    for arm in metrics["arms"].values():
        assert arm["prompts"] == arm["masks"] == 0 and "sam_image" not in arm["seconds"]
    assert metrics["agreement"]["final"]["mIoU"] == 100  # both name nothing


@pytest.mark.parametrize("size", [(1, 70), (70, 1), (1, 1)])
def test_thin_images(segmenter, size):
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    comparison = compare(segmenter, image, WORDS, background=())
    assert comparison.without.size == comparison.with_loftup.size == size
    area = comparison.metrics["arms"]["loftup"]["area"]["dense"]
    assert area["unnamed"] == 0 and sum(area["classes"].values()) == pytest.approx(100)


def test_upsamplers_of_ones_own(segmenter, image):
    def doubled(features, guide, size):
        return 2 * F.interpolate(features, size, mode="bilinear")

    plain = load_upsampler("bilinear")
    comparison = compare(segmenter, image, WORDS, upsamplers=(plain, doubled))
    assert comparison.arms == ("Resize", "doubled")
    with pytest.raises(ValueError, match="both upsamplers are called 'doubled'"):
        compare(segmenter, image, WORDS, upsamplers=(doubled, doubled))


def test_a_missing_loftup_is_told(preset, image):
    segmenter = load(dataclasses.replace(preset, loftup="nowhere.bin"), False)
    with pytest.raises(WeightsNotFoundError, match=r"nowhere\.bin does not exist"):
        compare(segmenter, image, WORDS)
