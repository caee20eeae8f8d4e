"""Arms: what their names mean, and that sharing work changes nothing about their answers."""

import dataclasses
import functools
import re

import numpy as np
import pytest
import torch

import models.networks
from models.dense import Dense
from models.loftup_sclip_segmentor import LoftUpSCLIPSegmentor
from models.presets import AutomaticMasks
from models.protocols import PROTOCOLS
from models.sclip_segmentor import SCLIPSegmentor
from models.weight_files import WeightsNotFoundError
from pipeline.config import PipelineConfig
from pipeline.datasets.base import GroundTruth
from pipeline.datasets.voc import CLASSES, LABELS
from pipeline.evaluation.arms import BASES as KNOWN
from pipeline.evaluation.arms import MODIFIERS, ORACLES, parse_arm, parse_arms
from pipeline.evaluation.runner import ArmRunner
from pipeline.world.scenes import load_world, render_scene

from ..datasets.voc_folders import RANDOM_NAMES, RANDOM_PROTOCOL, blocks, coloured_noise

SIZE = (60, 101)
WITHOUT_BACKGROUND = dataclasses.replace(RANDOM_PROTOCOL, name="random-20", background=())

BASES = {
    "none": {"upsampler": "none", "upsampled": None},
    "bilinear": {"upsampler": "bilinear", "upsampled": None},
    "bicubic": {"upsampler": "bicubic", "upsampled": None},
    "jbu": {"upsampler": "jbu", "upsampled": None},
    "jbu_wide": {"upsampler": "jbu_wide", "upsampled": None},
    "guided": {"upsampler": "guided", "upsampled": None},
    "anyup": {"upsampler": "anyup", "upsampled": None},
    "segments": {"upsampler": "segments", "upsampled": None},
    "naf": {"upsampler": "naf", "upsampled": None},
    "probability": {"upsampler": "bilinear", "upsampled": "probabilities"},
    "loftup": {"upsampler": "loftup", "upsampled": None, "loftup_share": 1},
    "mean": {"upsampler": "loftup", "upsampled": None, "loftup_share": 0.5},
}
DENSE = {
    "pamr": {"use_pamr": True},
    "csa": {"attention": "csa"},
    "vanilla": {"attention": "vanilla"},
    "maskclip": {"attention": "maskclip"},
    "naclip": {"attention": "naclip"},
    "clearclip": {"attention": "clearclip"},
    "proxy": {"attention": "proxy"},
    "corr": {"attention": "corr"},
    "imagenet": {"statistics": "imagenet"},
    "restored": {"text_space": "restored"},
    "channel_norm": {"text_space": "channel_norm"},
    "whole": {"whole_image": True},
    "features": {"upsampled": "features"},
    "scores": {"upsampled": "scores"},
}
FINAL = {
    "pole": {"strategy": "pole"},
    "centroid": {"strategy": "centroid"},
    "peak": {"strategy": "peak"},
    "multi": {"strategy": "multi"},
    "point": {"prompt_mask": False},
    "box": {"prompt_box": True},
    "negatives": {"negative_points": 2},
}


def test_these_tests_know_every_part():
    assert set(KNOWN) == set(BASES)
    assert set(MODIFIERS) == {"sam2", *DENSE, *FINAL}
    assert set(ORACLES) == {"oracle-points", "oracle-masks"}


@pytest.mark.parametrize("base", BASES)
def test_bases(base):
    arm = parse_arm(base)
    assert arm.name == base and not arm.final and not arm.needs_sam
    assert arm.oracle is None
    assert BASES[base].items() <= arm.changes.items()
    final = parse_arm(f"{base}+sam2")
    assert final.final and final.needs_sam and final.changes == arm.changes


@pytest.mark.parametrize("word", DENSE)
def test_modifiers_of_the_dense_map(word):
    base = "anyup" if word in ("features", "scores") else "loftup"
    plain = parse_arm(base).changes
    assert parse_arm(f"{base}+{word}").changes == plain | DENSE[word]
    for name in (f"{base}+{word}+sam2", f"{base}+sam2+{word}"):
        arm = parse_arm(name)
        assert arm.name == name and arm.final
        assert arm.changes == plain | DENSE[word]


@pytest.mark.parametrize("word", FINAL)
def test_modifiers_of_the_prompts(word):
    for name in (f"none+sam2+{word}", f"none+{word}+sam2"):
        arm = parse_arm(name)
        assert arm.final and arm.changes == parse_arm("none").changes | FINAL[word]


def test_modifiers_add_up():
    arm = parse_arm("mean+sam2+multi+box+negatives+point+pamr+whole+maskclip+channel_norm")
    assert arm.changes == parse_arm("mean").changes | {
        "strategy": "multi", "prompt_box": True, "negative_points": 2, "prompt_mask": False,
        "use_pamr": True, "whole_image": True, "attention": "maskclip", "text_space": "channel_norm"
    }  # fmt: skip


@pytest.mark.parametrize("name", ORACLES)
def test_oracles(name):
    arm = parse_arm(name)
    assert arm.oracle == name and arm.needs_sam and not arm.final


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("trilinear", "unknown arm 'trilinear': 'trilinear' is none of none, bilinear, "),
        ("Loftup", "'Loftup' is none of "),
        ("", "unknown arm '': '' is none of "),
        ("+sam2", "'' is none of none, bilinear"),
        ("sam2", "'sam2' is none of "),
        ("loftup+", "arm 'loftup+': unknown +; valid: +sam2, +pole"),
        ("loftup+sam3", "unknown +sam3; valid: +sam2, +pole"),
        ("loftup+bilinear", "unknown +bilinear; valid: "),
        ("bilinear+pole", "arm 'bilinear+pole': +pole is about SAM 2's prompts; add +sam2"),
        ("loftup+negatives+pamr", "+negatives is about SAM 2's prompts; add +sam2"),
        ("loftup+csa+maskclip", "give only one of +csa +maskclip"),
        ("loftup+sam2+multi+pole", "give only one of +multi +pole"),
        ("loftup+restored+channel_norm", "give only one of +restored +channel_norm"),
        ("loftup+pamr+pamr", "give only one of +pamr +pamr"),
        ("loftup+sam2+sam2", "give only one of +sam2 +sam2"),
        ("bilinear+channel_norm", "+channel_norm is for loftup and mean only"),
        ("probability+restored", "+restored is for loftup and mean only"),
        ("loftup+scores", "upsampler loftup upsamples features, not scores"),
        ("probability+features", "+features is for none, bilinear, "),
        ("mean+features+scores", "give only one of +features +scores"),
        ("oracle-points+sam2", "(oracles take no modifiers)"),
        ("oracle-masks+pole", "(oracles take no modifiers)"),
    ],
)
def test_refusals(name, message):
    with pytest.raises(ValueError) as caught:
        parse_arm(name)
    text = str(caught.value)
    assert message in text and repr(name) in text and "\n" not in text and len(text) < 700


def test_lists_of_arms():
    assert [arm.name for arm in parse_arms(["loftup", "none+sam2"])] == ["loftup", "none+sam2"]
    with pytest.raises(ValueError, match=r"no arms given; name some, e\.g\. none bilinear"):
        parse_arms([])
    with pytest.raises(ValueError, match=r"arm 'none\+sam2' is given twice; remove one"):
        parse_arms(["none+sam2", "loftup", "none+sam2"])
    with pytest.raises(ValueError, match="unknown arm 'loftdown'"):
        parse_arms(["loftup", "loftdown"])


# From here on, answers.


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return coloured_noise(1, SIZE)


@pytest.fixture
def runner(random_segmenter) -> ArmRunner:
    segmenter = random_segmenter
    return ArmRunner(segmenter.dense, RANDOM_PROTOCOL, LABELS, config=segmenter.config)


def run(
    runner: ArmRunner, image: np.ndarray, *names: str, truth: GroundTruth | None = None
) -> dict:
    return {arm.name: found for arm, found in runner.run(image, parse_arms(names), truth)}


def in_voc_coding(labels: np.ndarray, names=RANDOM_NAMES) -> np.ndarray:
    """From class indices, the background last."""
    return np.array([*(CLASSES.index(name) + 1 for name in names), 0], np.uint8)[labels]


DENSE_ARMS = {
    "none": {"upsampler": "none"},
    "bilinear": {},
    "bilinear+features": {"upsampled": "features"},
    "bicubic": {"upsampler": "bicubic"},
    "jbu": {"upsampler": "jbu"},
    "guided": {"upsampler": "guided"},
    "probability": {"upsampled": "probabilities"},
    "loftup": {"loftup_share": 1},
    "bilinear+pamr": {"use_pamr": True},
    "loftup+pamr": {"loftup_share": 1, "use_pamr": True},
    "bilinear+csa": {"attention": "csa"},
    "bilinear+maskclip": {"attention": "maskclip"},
    "bilinear+naclip": {"attention": "naclip"},
    "bilinear+proxy": {"attention": "proxy"},
    "bilinear+corr": {"attention": "corr"},
    "bilinear+imagenet": {"statistics": "imagenet"},
    "loftup+vanilla": {"loftup_share": 1, "attention": "vanilla"},
    "loftup+channel_norm": {"loftup_share": 1, "text_space": "channel_norm"},
    "loftup+restored": {"loftup_share": 1, "text_space": "restored"},
    "bilinear+whole": {"whole_image": True},
    "loftup+whole": {"loftup_share": 1, "whole_image": True},
}


# Settings that have no short name, and what they change.
WRITTEN_OUT = {
    "bilinear+map_correction=on": {"map_correction": True},
    "guided+corr+corr_scope=off+map_correction=off": {
        "upsampler": "guided", "attention": "corr", "corr_scope": False, "map_correction": False
    },
    "bilinear+corr+regions=proxy+proxy_scale=2": {
        "attention": "corr", "regions": "proxy", "proxy_scale": 2
    },
}  # fmt: skip


def test_ablations_are_arms(runner, image):
    """Together they share features and regions, and none takes those of another."""
    found = run(runner, image, "bilinear+corr", *WRITTEN_OUT)
    for name, settings in WRITTEN_OUT.items():
        changes = parse_arm(name).changes
        assert {key: changes[key] for key in settings} == settings
        plain = runner.dense.with_config(upsampler="bilinear").with_config(**settings)
        dense = plain.dense(image, RANDOM_PROTOCOL.vocabulary())
        assert np.array_equal(found[name].labels, in_voc_coding(dense.labels)), name
        assert ("regions" in found[name].seconds) and found[name].seconds["regions"] > 0
    assert len({found[name].labels.tobytes() for name in found}) == len(found)


def test_dense_arms_are_what_the_plain_way_gives(random_preset, runner, image, monkeypatch):
    monkeypatch.setattr(models.networks, "load_clip", functools.cache(models.networks.load_clip))
    # All in one run: nothing that they share may leak from one to the next.
    found = run(runner, image, *DENSE_ARMS)
    for name, settings in DENSE_ARMS.items():
        plain = LoftUpSCLIPSegmentor if "loftup" in name else SCLIPSegmentor
        segmentor = plain(
            "cpu", preset=random_preset, protocol=RANDOM_PROTOCOL, verbose=False, **settings
        )
        dense = segmentor.dense(image, RANDOM_PROTOCOL.vocabulary())
        assert np.array_equal(found[name].labels, in_voc_coding(dense.labels)), name
        assert found[name].labels.dtype == np.uint8 and found[name].labels.shape == SIZE
        assert found[name].prompts is None and found[name].masks == []
    different = {prediction.labels.tobytes() for prediction in found.values()}
    assert len(different) == len(DENSE_ARMS) - 2  # +csa and +restored are what the models do anyway


def test_mean_is_half_of_both(random_preset, runner, image, monkeypatch):
    seen = []
    classify = Dense.classify

    def spy(self, scores, *arguments, **keywords):
        seen.append(scores.clone())
        return classify(self, scores, *arguments, **keywords)

    monkeypatch.setattr(Dense, "classify", spy)
    found = run(runner, image, "mean", "bilinear", "loftup")
    mean, bilinear, loftup = seen
    assert torch.equal(mean, 0.5 * bilinear + 0.5 * loftup)
    assert not torch.allclose(mean, bilinear) and not torch.allclose(mean, loftup)
    plain = LoftUpSCLIPSegmentor(
        "cpu", preset=random_preset, protocol=RANDOM_PROTOCOL, verbose=False, loftup_share=0.5
    )
    expected = in_voc_coding(plain.dense(image, RANDOM_PROTOCOL.vocabulary()).labels)
    torch.testing.assert_close(seen[3], mean, atol=1e-5, rtol=0)
    assert np.mean(expected == found["mean"].labels) > 0.999  # they differ in the last bits
    alone = run(runner, image, "mean")["mean"]
    assert np.array_equal(alone.labels, found["mean"].labels)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("bilinear+sam2", {}),
        ("loftup+sam2", {}),
        ("loftup+sam2+pamr", {}),
        ("bilinear+sam2+centroid", {"strategy": "centroid"}),
        ("bilinear+sam2+multi+box", {"strategy": "multi", "prompt_box": True}),
        ("bilinear+sam2+point+negatives", {"prompt_mask": False, "negative_points": 2}),
    ],
)
def test_final_arms_are_what_the_segmenter_gives(name, changes, random_segmenter, runner, image):
    found = run(runner, image, "bilinear", name)[name]
    changes = parse_arm(name).dense_changes | changes
    plain = random_segmenter.with_config(protocol=RANDOM_PROTOCOL, **changes)
    result = plain.segment(image, RANDOM_PROTOCOL.vocabulary())
    # Else this would say little:
    assert len(result) > 3 and set(result.sources) == {"sam2", "region"}
    assert (result.label_map == 0).any() and result.label_map.any()
    table = np.array([0, *(CLASSES.index(name) + 1 for name in RANDOM_NAMES)])
    assert np.array_equal(found.labels, table[result.label_map])
    assert found.labels.dtype == np.uint8
    assert found.prompts == result.settings["prompts"] and len(found.masks) == len(result)
    for index, mask in enumerate(found.masks):
        assert CLASSES[mask["label"] - 1] == result.class_name(index)
        assert np.array_equal(mask["mask"], result.masks[index])
        assert mask["score"] == pytest.approx(float(result.scores[index]))
        assert mask["source"] == result.sources[index]
        assert mask["points"] == result.points[index].tolist()


def test_without_background_the_dense_map_fills_the_gaps(random_segmenter, image):
    config = PipelineConfig(min_confidence=0.7)
    runner = ArmRunner(random_segmenter.dense, WITHOUT_BACKGROUND, LABELS, config=config)
    found = run(runner, image, "bilinear", "bilinear+sam2")
    segmenter = runner.segmenter_of(parse_arm("bilinear+sam2"))
    result = segmenter.segment(image, WITHOUT_BACKGROUND.vocabulary())
    gaps = result.label_map == 0
    assert gaps.any() and not gaps.all()
    table = np.array([0, *(CLASSES.index(name) + 1 for name in RANDOM_NAMES)])
    labels = found["bilinear+sam2"].labels
    assert np.array_equal(labels[~gaps], table[result.label_map[~gaps]])
    assert np.array_equal(labels[gaps], found["bilinear"].labels[gaps])
    assert labels.min() > 0 and found["bilinear"].labels.min() > 0


def test_labels_are_vocs():
    # No glyph shows a dining table, so the horse is class 11 of this protocol, 12 in its results.
    protocol = PROTOCOLS["rendered-voc"]
    assert protocol.class_names.index("horse") == 11 and CLASSES.index("horse") + 1 == 13
    segmentor = LoftUpSCLIPSegmentor("cpu", use_loftup=False, preset="tiny", verbose=False)
    scene = render_scene(
        load_world(), np.random.default_rng(0), size=(200, 300), objects=(1, 1), nouns=("horse",),
        side=(150.0, 170.0),
    )  # fmt: skip
    runner = ArmRunner(segmentor, protocol, LABELS)
    labels = run(runner, scene.image, "bilinear")["bilinear"].labels
    assert np.mean(labels[scene.instances > 0] == 13) > 0.8
    assert np.mean(labels[scene.instances == 0] == 0) > 0.9


# From here on, what is shared.


@pytest.fixture
def calls(random_segmenter, monkeypatch):
    """How often the costly networks ran."""
    counts = {"clip": 0, "loftup": 0, "sam": 0}

    def count(owner, method, name):
        original = getattr(owner, method)

        def counted(*arguments, **options):
            counts[name] += 1
            return original(*arguments, **options)

        monkeypatch.setattr(owner, method, counted)

    networks = random_segmenter.networks
    count(networks.network("clip").visual.conv1, "forward", "clip")
    count(networks.network("loftup"), "upsample_scores", "loftup")
    count(networks.network("sam2"), "forward_image", "sam")
    return counts


def test_costly_networks_run_once_per_image(runner, calls):
    # A batch holds all windows of such an image.
    for seed in range(2):
        found = run(runner, coloured_noise(seed, SIZE), "bilinear", "loftup", "loftup+sam2")
        assert found["loftup+sam2"].prompts
    assert calls == {"clip": 2, "loftup": 2, "sam": 2}


def test_many_arms_share_as_well(runner, image, calls, monkeypatch):
    preset = runner.networks.preset  # a coarse grid is faster
    sam = dataclasses.replace(preset.sam, automatic=AutomaticMasks(points_per_side=4))
    monkeypatch.setattr(runner.networks, "preset", dataclasses.replace(preset, sam=sam))
    truth = GroundTruth(labels=blocks(SIZE, (12, 5, 5, 40, 50)), objects=None)
    run(
        runner, image, "loftup+sam2", "mean+sam2", "mean+pamr", "bilinear+sam2+peak", "none",
        "loftup+pamr", "oracle-points", "oracle-masks", truth=truth,
    )  # fmt: skip
    assert calls == {"clip": 1, "loftup": 1, "sam": 1}
    run(runner, image, "bilinear+maskclip", "none+maskclip", "none+csa")  # two kinds of features
    assert calls == {"clip": 3, "loftup": 1, "sam": 1}


def test_only_what_is_needed_runs(runner, image, calls):
    run(runner, image, "bilinear")
    assert calls == {"clip": 1, "loftup": 0, "sam": 0}
    run(
        runner,
        image.copy(),
        "oracle-points",
        truth=GroundTruth(blocks(SIZE, (1, 0, 0, 9, 9)), None),
    )
    assert calls == {"clip": 1, "loftup": 0, "sam": 1}


def test_times_are_those_of_an_arm_alone(runner, image):
    found = run(runner, image.copy(), "mean", "bilinear", "loftup", "bilinear+sam2", "loftup+sam2")
    dense = ["clip", "text", "upsample", "classes"]
    assert list(found["bilinear"].seconds) == dense
    assert list(found["loftup+sam2"].seconds) == [*dense, "prompts", "sam_image", "masks"]
    times = {name: prediction.seconds for name, prediction in found.items()}
    assert len({seconds["clip"] for seconds in times.values()}) == 1
    upsample = {name: seconds["upsample"] for name, seconds in times.items()}
    assert upsample["mean"] == upsample["bilinear"] + upsample["loftup"]
    assert upsample["loftup+sam2"] == upsample["loftup"] > upsample["bilinear"]
    # The second does not encode the image again, but alone it would have to.
    assert times["loftup+sam2"]["sam_image"] == times["bilinear+sam2"]["sam_image"] > 1e-3


def test_the_segmentor_given_stays_as_it_was(random_segmenter, runner, image):
    before = dict(vars(random_segmenter.dense))
    run(runner, image, "none+maskclip+pamr+whole", "mean+channel_norm+sam2+multi")
    assert before == vars(random_segmenter.dense)
    assert runner.dense_of(parse_arm("none")).protocol is RANDOM_PROTOCOL


def test_settings_tell_what_decides(runner):
    def settings(name):
        return runner.record(parse_arm(name))

    assert settings("bilinear")["upsampler"] == "bilinear"
    assert "strategy" not in settings("bilinear")
    dense = {k: v for k, v in settings("bilinear").items() if k != "weights"}
    assert dense.items() <= settings("bilinear+sam2").items()
    final = settings("bilinear+sam2+multi")
    assert final["strategy"] == "multi" and final["min_confidence"] == 0.4
    assert settings("bilinear")["weights"].keys() == {"clip"}
    assert final["weights"].keys() == {"clip", "sam2"}
    assert settings("oracle-points")["weights"].keys() == {"sam2"}
    names = [*DENSE_ARMS, "mean", "mean+sam2", "mean+sam2+box", *ORACLES]
    assert len({str(settings(name)) for name in names}) == len(names) - 2  # +csa, +restored


class EverythingSam:
    """A SAM 2 that always finds one mask."""

    def __init__(self, mask: np.ndarray) -> None:
        self.mask = mask

    def set_image(self, image: np.ndarray) -> None:
        self.size = image.shape[:2]

    def automatic(self, image: np.ndarray, settings: AutomaticMasks) -> list[dict]:
        return [{"segmentation": self.mask}]


def test_background_has_no_say_where_it_is_not_scored(random_segmenter, image):
    labels = blocks(SIZE, (12, 20, 20, 30, 30))
    mask = blocks(SIZE, (1, 10, 10, 40, 60)).astype(bool)  # mostly background
    for protocol, value in ((RANDOM_PROTOCOL, 0), (WITHOUT_BACKGROUND, 12)):
        runner = ArmRunner(random_segmenter.dense, protocol, LABELS, sam=EverythingSam(mask))
        found = run(runner, image, "oracle-masks", truth=GroundTruth(labels, None))["oracle-masks"]
        assert np.array_equal(found.labels, mask * np.uint8(value))
        assert found.prompts is None and found.masks == []


def test_no_silent_loftup(random_preset, image):
    preset = dataclasses.replace(random_preset, loftup="nowhere.bin")
    runner = ArmRunner(Dense(models.networks.Networks(preset, "cpu")), RANDOM_PROTOCOL, LABELS)
    for ask in (runner.load, lambda arms: list(runner.run(image, arms))):
        ask(parse_arms(["bilinear"]))
        with pytest.raises(WeightsNotFoundError, match=r"nowhere\.bin does not exist"):
            ask(parse_arms(["loftup"]))


OWN = """
import torch.nn.functional as F
from models.upsamplers import Upsampler

def nearest(features, guide, size):
    return F.interpolate(features, size, mode="nearest-exact")

class Nearest(Upsampler):
    def upsample(self, features, guide, size):
        return nearest(features, guide, size)

def narrow(features, guide, size):
    return nearest(features, guide, (size[0], size[1] - 1))

def broken(features, guide, size):
    return nearest(features, guide, size) * float("nan")
"""


def test_an_upsampler_of_ones_own_is_an_arm(runner, image, tmp_path):
    file = tmp_path / "own.py"
    file.write_text(OWN)
    names = [f"mine={file}:nearest", f"ours={file}:Nearest+sam2+box", "none+features"]
    found = run(runner, image, *names)
    assert list(found) == ["mine", "ours+sam2+box", "none+features"]
    assert np.array_equal(found["mine"].labels, found["none+features"].labels)
    assert found["ours+sam2+box"].prompts
    record = runner.record(parse_arm(names[0]))
    assert record["upsampler"] == "mine" and len(record["upsampler_code"]) == 16
    for name, message in {
        f"a={file}:narrow": "upsampler a must give a tensor of shape",
        f"a={file}:broken": "upsampler a must give finite floating-point values, got NaN",
        f"a={file}:gone": "own upsampler 'a=.*:gone': AttributeError",
        f"none={file}:nearest": "needs a name of letters and digits that is not taken",
        "a=own:nearest": "expected NAME=path/to/file.py:function_or_class",
    }.items():
        with pytest.raises(ValueError, match=message):
            run(runner, image, name)
    with pytest.raises(FileNotFoundError, match=r"there is no file gone\.py"):
        parse_arm("a=gone.py:nearest")


def test_any_setting_is_a_modifier():
    arm = parse_arm("loftup+sam2+loftup_share=0.3+min_score=0+prompt_box=on+strategy=peak")
    expected = {"loftup_share": 0.3, "min_score": 0.0, "prompt_box": True, "strategy": "peak"}
    assert expected.items() <= arm.changes.items()
    for name, message in {
        "loftup+min_score=0": "about SAM 2's prompts; add +sam2",
        "loftup+sam2+min_score=5": "min_score must be between 0 and 1, got 5",
        "loftup+sam2+min_score=a": "min_score='a' is no number",
        "loftup+use_pamr=maybe": "use_pamr is on or off, got 'maybe'",
        "loftup+upsampler=jbu": "unknown +upsampler=jbu",
    }.items():
        with pytest.raises(ValueError, match=re.escape(message)):
            parse_arm(name)
