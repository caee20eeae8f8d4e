"""The whole method with small random models, and with hand-made dense maps and SAM answers."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.measure import label
from torch.nn import functional as F

from models.dense import DenseResult
from models.presets import Preset
from models.sclip_segmentor import SCLIPSegmentor
from models.vocabulary import Vocabulary
from pipeline.app.options import SCENE
from pipeline.config import PipelineConfig
from pipeline.found import say_what_is_missing, what_is_missing
from pipeline.result import Segmentation, decode_rle
from pipeline.segmenter import Segmenter

from .fakes import FakeSam, grid

HEIGHT, WIDTH = 60, 101
WORDS = ["cow", "peacock,big bird", "sofa"]  # random weights see each of them somewhere
EAGER = PipelineConfig(min_confidence=0.2, min_region_size=9)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 8, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def preset(random_preset: Preset) -> Preset:
    """Random features hardly differ: a large scale spreads the probabilities."""
    protocol = dataclasses.replace(
        random_preset.protocol, logit_scale=400, background=("bat", "Sofa", "aeroplane")
    )
    return dataclasses.replace(random_preset, protocol=protocol)


@pytest.fixture(scope="module")
def segmenter(preset) -> Segmenter:
    return Segmenter.from_preset(preset, device="cpu", use_loftup=True, config=EAGER)


@pytest.fixture(scope="module")
def result(segmenter, image) -> Segmentation:
    return segmenter.segment(image, WORDS)


def assert_equal(one: Segmentation, other: Segmentation) -> None:
    """Equal in everything but timings and where the image is from."""
    for field in dataclasses.fields(Segmentation):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if field.name == "points":
            assert all(np.array_equal(p, q) for p, q in zip(a, b, strict=True))
        elif field.name not in ("timings", "image_path"):
            assert np.array_equal(a, b), field.name


def test_the_parts_of_a_result_agree(result):
    assert len(result) > 3 and len(set(result.class_ids)) > 1  # else this would say little
    assert result.size == (HEIGHT, WIDTH)
    assert result.class_names == ("cow", "peacock", "sofa")
    assert set(np.unique(result.label_map)) - {0} <= set(result.class_ids + 1)
    assert np.array_equal(result.label_map > 0, result.masks.any(0))
    assert result.dense_map.max() <= 3
    assert set(result.sources) <= {"sam2", "region"}
    for index, (x0, y0, x1, y1) in enumerate(result.boxes.astype(int)):
        mask = result.masks[index]
        inside = mask[y0:y1, x0:x1]
        assert inside.sum() == mask.sum() > 0
        assert inside[[0, -1]].any(1).all() and inside[:, [0, -1]].any(0).all()
        points = result.points[index]
        assert len(points) >= 1
        for x, y in points.astype(int):
            assert 0 <= x < WIDTH and 0 <= y < HEIGHT
            # Clicks lie on the class that the dense map sees there.
            assert result.dense_map[y, x] == result.class_ids[index] + 1
    for pixel in np.argwhere(result.label_map)[::97]:
        covering = result.class_ids[result.masks[:, pixel[0], pixel[1]]]
        assert result.label_map[tuple(pixel)] - 1 in covering


def test_what_a_result_tells_about_itself(result, segmenter):
    settings = result.settings
    assert settings["vocabulary"] == [["cow"], ["peacock", "big bird"], ["sofa"]]
    assert settings["background"] == ["bat", "aeroplane"]  # the user's words win
    assert settings["prompts"] >= len(result)
    assert settings["preset"] == "random" and settings["device"] == "cpu"
    assert settings["upsampler"] == "loftup" and settings["text_space"] == "restored"
    assert settings["weights"].keys() == {"clip", "loftup", "sam2"}
    assert EAGER.to_dict().keys() <= settings.keys() and settings["min_confidence"] == 0.2
    assert {"python", "torch", "open_clip_torch", "sam2", "numpy"} == result.versions.keys()
    stages = ["clip", "text", "upsample", "classes", "prompts", "sam_image", "masks"]
    assert list(result.timings) == stages
    assert all(seconds >= 0 for seconds in result.timings.values())
    data = json.loads(json.dumps(result.to_json_dict()))
    for record, mask in zip(data["masks"], result.masks, strict=True):
        assert np.array_equal(decode_rle(record["segmentation"]), mask)


def test_the_same_again(segmenter, image, result, tmp_path):
    again = segmenter.segment(image, WORDS)
    assert_equal(again, result)
    assert again.image_path is None
    Image.fromarray(image).save(tmp_path / "image.png")
    from_file = segmenter.segment(tmp_path / "image.png", WORDS)
    assert_equal(from_file, result)
    assert from_file.image_path == str(tmp_path / "image.png")
    assert segmenter.segment(image, WORDS, image_path="there.png").image_path == "there.png"


def test_an_encoded_image_serves_many_vocabularies(segmenter, image, result, monkeypatch):
    encoded = segmenter.dense.encode(image)
    monkeypatch.setattr(segmenter.dense, "encode", None)  # must not be needed again
    assert_equal(segmenter.segment(encoded, WORDS), result)
    assert segmenter.segment(encoded, ["dog"]).class_names == ("dog",)


def test_without_loftup_the_dense_map_is_sclips(preset, image):
    segmenter = Segmenter.from_preset(preset, device="cpu", config=EAGER)
    result = segmenter.segment(image, WORDS, background=())
    sclip = SCLIPSegmentor("cpu", preset=preset, verbose=False)
    assert np.array_equal(result.dense_map, sclip.predict_dense(image, WORDS) + 1)
    assert "loftup" not in result.settings["weights"] and result.settings["background"] == []


def test_other_settings(segmenter, image, result):
    changed = segmenter.with_config(min_confidence=0.9, upsampler="jbu")
    assert changed.networks is segmenter.networks
    assert changed.config.upsampled == "scores" and segmenter.config.upsampled == "features"
    once = segmenter.segment(image, WORDS, min_confidence=0.9, upsampler="jbu")
    assert_equal(once, changed.segment(image, WORDS))
    assert once.settings["min_confidence"] == 0.9 and len(once) < len(result)
    assert_equal(segmenter.segment(image, WORDS), result)  # it stays as it was
    with pytest.raises(ValueError, match="min_confidence must be between 0 and 1, got 7"):
        segmenter.with_config(min_confidence=7)
    with pytest.raises(TypeError, match="min_confidense"):
        segmenter.segment(image, WORDS, min_confidense=0.5)
    assert None not in dataclasses.asdict(changed.config).values()


def test_background(segmenter, image, result):
    assert (result.dense_map == 0).any()
    without = segmenter.segment(image, WORDS, background=())
    assert without.dense_map.min() == 1
    words = Vocabulary.parse(WORDS, ("bat", "aeroplane"))
    assert_equal(segmenter.segment(image, words), result)
    other = segmenter.segment(image, WORDS, background=["bat", "aeroplane"])
    assert_equal(other, result)


def test_what_is_not_wanted_competes_and_is_dropped(segmenter, image):
    named = segmenter.segment(image, WORDS, background=["bat"], keep_probs=True)
    result = segmenter.segment(
        image, WORDS[:2], background=["bat"], not_words=WORDS[2:], keep_probs=True
    )
    wanted = named.class_ids != 2
    assert 0 < wanted.sum() < len(named)  # else this would say little
    for name in ("masks", "class_ids", "scores", "confidences", "agreement", "boxes"):
        assert np.array_equal(getattr(result, name), getattr(named, name)[wanted])
    assert result.sources == tuple(np.array(named.sources)[wanted])
    for name in ("label_map", "dense_map"):
        labels = getattr(named, name)
        assert (labels == 3).any()
        assert np.array_equal(getattr(result, name), np.where(labels == 3, 0, labels))
    assert np.array_equal(result.probs, named.probs[[0, 1, 3]])
    assert result.class_names == ("cow", "peacock")
    data = json.dumps(result.to_json_dict())
    assert result.settings["not_words"] == [["sofa"]] and data.count("sofa") == 1
    assert segmenter.segment(image, WORDS).probs is None


def test_a_vocabulary_without_a_word_on_its_background_gets_the_protocols(segmenter, image, result):
    words = Vocabulary(("cow", "peacock", "sofa"), (("cow",), ("peacock", "big bird"), ("sofa",)))
    assert_equal(segmenter.segment(image, words), result)
    assert_equal(
        segmenter.segment(image, words, background=()),
        segmenter.segment(image, Vocabulary.parse(WORDS, ())),
    )
    sky = dataclasses.replace(words, background=("sky",))
    assert segmenter.vocabulary(sky) is sky
    with pytest.raises(ValueError, match="brings its own background"):
        segmenter.vocabulary(sky, background=["road"])


def test_a_vocabulary_brings_all(segmenter, image):
    words = Vocabulary.parse(WORDS)
    for more in ({"background": ()}, {"not_words": ["bat"]}, {"thresholds": {"cow": 0.5}}):
        with pytest.raises(ValueError, match="a Vocabulary brings its own background, not_words"):
            segmenter.segment(image, words, **more)


def test_regions_where_sam_is_never_trusted(segmenter, image):
    strict = segmenter.with_config(min_score=1, min_agreement=1, min_confidence=0, iou_threshold=1)
    result = strict.segment(image, WORDS)
    assert set(result.sources) == {"region"}
    assert np.array_equal(result.masks.any(0), result.label_map > 0)
    # Every component that is large enough is a mask, and nothing else is.
    components = label(result.dense_map, background=0, connectivity=2)
    expected = {
        (components == number).tobytes()
        for number in range(1, components.max() + 1)
        if (components == number).sum() >= 9
    }
    assert {mask.tobytes() for mask in result.masks} == expected
    where = result.label_map > 0
    assert np.array_equal(result.label_map[where], result.dense_map[where])


def test_settings_reach_the_prompts(segmenter, image):
    changes = {"strategy": "multi", "points_per_region": 2, "prompt_box": True}
    changes |= {"prompt_mask": True, "negative_points": 1, "iou_threshold": 1}
    result = segmenter.segment(image, WORDS, **changes)
    assert len(result) == result.settings["prompts"]
    assert {len(points) for points in result.points} == {2}


@pytest.mark.parametrize("size", [(1, 70), (70, 1), (20, 20), (1, 1)])
def test_small_and_thin_images(segmenter, size):
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    lax = segmenter.with_config(min_confidence=0, min_region_size=1)
    result = lax.segment(image, WORDS, background=())
    assert result.size == size and len(result) > 0


def test_bad_input(segmenter, image, tmp_path):
    with pytest.raises(ValueError, match="the vocabulary is empty"):
        segmenter.segment(image, [])
    with pytest.raises(ValueError, match="given twice"):
        segmenter.segment(image, ["cat", "Cat"])
    with pytest.raises(FileNotFoundError, match="image not found"):
        segmenter.segment(tmp_path / "nowhere.png", WORDS)
    with pytest.raises(ValueError, match="unknown preset 'small'; valid: vit-b16, tiny"):
        Segmenter.from_preset("small")
    with pytest.raises(ValueError, match="device 'abacus' is not available"):
        Segmenter.from_preset("tiny", device="abacus")


# From here on, the dense map and SAM's answers are made by hand, on an image of 32×64 pixels.


@pytest.fixture(scope="module")
def encoded(segmenter):
    return segmenter.dense.encode(np.full((32, 64, 3), 128, np.uint8))


def dense_map(labels: np.ndarray, best: np.ndarray, classes: int) -> DenseResult:
    """`best` is the probability of each pixel's own class, the others share the rest."""
    probs = np.repeat(((1 - best) / (classes - 1))[None], classes, axis=0).astype(np.float32)
    np.put_along_axis(probs, labels[None], best[None].astype(np.float32), axis=0)
    return DenseResult(labels=labels, probs=probs, features=None)


def by_hand(segmenter: Segmenter, sam: FakeSam, **settings) -> Segmenter:
    config = PipelineConfig(**settings)
    return Segmenter(segmenter.networks, config, sam=sam, dense=segmenter.dense)


def test_scores_to_label_map(segmenter, encoded):
    # Columns 0…15 cat, 16…31 fox, 32…47 dog, 48…63 sky; SAM's cat spills over half of the fox and
    # its fox over some of the dog.
    words = Vocabulary.parse(["cat", "dog"], ["sky"], not_words=["fox"])
    scores = torch.zeros(4, 32, 64)  # of cat, dog, fox, sky
    for word, column in ((0, 0), (1, 32), (2, 16), (3, 48)):
        scores[word, :, column : column + 16] = 0.02  # × 400 in the softmax: sure
    dense = segmenter.dense.classify(scores, encoded, words)
    spans = {0: (0, 6), 16: (4, 9), 32: (8, 12)}  # of the masks, in cells of 4 columns
    answers = {
        (x, y): ((grid(0, left, 16, right),) * 3, (0.9, 0.8, 0.7))
        for start, (left, right) in spans.items()
        for x in range(start, start + 16)
        for y in range(32)
    }
    result = by_hand(segmenter, FakeSam(answers)).masks(encoded, dense, words, keep_probs=True)
    assert result.settings["prompts"] == 3 and result.class_ids.tolist() == [0, 1]
    assert result.boxes.tolist() == [[0, 0, 24, 32], [32, 0, 48, 32]]  # whole, as SAM drew them
    expected = np.zeros((32, 64), np.uint8)
    expected[:, :16], expected[:, 32:48] = 1, 2
    assert np.array_equal(result.label_map, expected)  # in columns 16…23 the fox wins
    assert np.array_equal(result.dense_map, expected)
    assert result.probs.shape == (3, 32, 64) and (result.probs[:, :, 20] < 0.01).all()

    free = Vocabulary.parse(["cat", "dog"], ["sky"])
    dense = segmenter.dense.classify(scores[[0, 1, 3]], encoded, free)
    result = by_hand(segmenter, FakeSam(answers)).masks(encoded, dense, free)
    expected[:, 16:24] = 1  # nothing keeps the cat from there
    assert np.array_equal(result.label_map, expected)


@pytest.mark.parametrize(
    ("thresholds", "found"),
    [
        ({}, [0]),
        ({"dog": 0.6}, [0, 1]),
        ({"cat": 0.81, "dog": 0.59}, [1]),
        ({"cat": 0.8, "dog": 0.61}, [0]),
    ],
)
def test_thresholds(segmenter, encoded, thresholds, found):
    labels, best = np.full((32, 64), 2), np.full((32, 64), 0.9)
    labels[:, :20], best[:, :20] = 0, 0.8  # a cat
    labels[:, 40:60], best[:, 40:60] = 1, 0.6  # an unsure dog
    words = Vocabulary.parse(["cat", "dog"], ["sky"], thresholds=thresholds)
    sam = FakeSam({None: ((ALL, ALL, ALL), (0.1, 0.1, 0.1))})  # never trusted
    result = by_hand(segmenter, sam).masks(encoded, dense_map(labels, best, 3), words)
    assert result.class_ids.tolist() == found
    assert set(np.unique(result.label_map)) == {0, *(i + 1 for i in found)}
    assert result.settings["thresholds"] == thresholds


VOCABULARY = Vocabulary.parse(["cat", "dog"], ["sky"])
SMALL, LARGE, ALL = grid(4, 2, 8, 4), grid(4, 2, 12, 14), grid(0, 0, 16, 16)


@pytest.fixture
def dumbbell() -> tuple[np.ndarray, np.ndarray]:
    """One component of class 1 (rows 8…23, columns 8…55) with two confident ends."""
    labels, best = np.full((32, 64), 2), np.full((32, 64), 0.9)
    labels[8:24, 8:56] = 1
    best[8:24, 20:44] = 0.5
    return labels, best


def test_clicks_on_one_object_become_one_mask(segmenter, encoded, dumbbell):
    sam = FakeSam({None: ((SMALL, LARGE, ALL), (0.9, 0.8, 0.9))})
    result = by_hand(segmenter, sam).masks(encoded, dense_map(*dumbbell, 3), VOCABULARY)
    assert result.settings["prompts"] == 2 and len(result) == 1
    assert result.boxes.tolist() == [[8, 8, 56, 24]] and result.masks[0].sum() == 16 * 48
    assert result.class_ids.tolist() == [1] and result.sources == ("sam2",)
    (points,) = result.points
    assert points.shape == (2, 2) and sorted(points[:, 0] > 32) == [False, True]
    assert np.array_equal(result.label_map, np.where(dumbbell[0] == 1, 2, 0))
    assert sam.image is encoded.image

    apart = by_hand(segmenter, sam, iou_threshold=1)
    assert len(apart.masks(encoded, dense_map(*dumbbell, 3), VOCABULARY)) == 2


def test_the_same_component_twice_is_one_mask(segmenter, encoded, dumbbell):
    sam = FakeSam({None: ((SMALL, SMALL, ALL), (0.4, 0.3, 0.2))})
    result = by_hand(segmenter, sam).masks(encoded, dense_map(*dumbbell, 3), VOCABULARY)
    assert result.sources == ("region",) and len(result.points[0]) == 2
    assert np.array_equal(result.masks[0], dumbbell[0] == 1)


def test_two_classes_that_overlap(segmenter, encoded):
    labels, best = np.zeros((32, 64), int), np.full((32, 64), 0.8)
    labels[:, 32:] = 1
    answers = {None: ((grid(0, 0, 16, 10),) * 3, (0.9, 0.8, 0.7))}  # columns 0…39
    for x in range(32, 64):
        for y in range(32):
            answers[x, y] = ((grid(0, 6, 16, 16),) * 3, (0.9, 0.8, 0.7))  # columns 24…63
    result = by_hand(segmenter, FakeSam(answers)).masks(
        encoded, dense_map(labels, best, 2), Vocabulary.parse(["cat", "dog"])
    )
    assert result.masks.sum(axis=(1, 2)).tolist() == [32 * 40, 32 * 40]
    # Where both claim a pixel, the dense probabilities decide.
    assert np.array_equal(result.label_map, labels + 1)


def test_nothing_confident(segmenter, encoded, dumbbell):
    labels, best = dumbbell
    sam = FakeSam({})
    for dense in (
        dense_map(labels, np.full_like(best, 0.69), 3),  # unsure
        dense_map(np.full_like(labels, 2), best, 3),  # background only
    ):
        result = by_hand(segmenter, sam).masks(encoded, dense, VOCABULARY)
        assert len(result) == 0 and result.settings["prompts"] == 0
        assert result.masks.shape == (0, 32, 64) and result.boxes.shape == (0, 4)
        assert not result.label_map.any()
        assert "sam_image" not in result.timings and sam.image is None  # SAM was not run
        assert json.loads(json.dumps(result.to_json_dict()))["masks"] == []


def test_what_is_said_of_classes_without_a_mask(segmenter, encoded):
    labels, best = np.zeros((32, 64), int), np.full((32, 64), 0.5)
    best[9, 40] = 0.52
    words = Vocabulary.parse(["car", "auto"], ["ＣＡＴ"])
    unsure = by_hand(segmenter, FakeSam({})).masks(encoded, dense_map(labels, best, 3), words)
    assert unsure.settings["not_found"]["car"] == {"confidence": 0.52, "point": [40, 9]}
    assert say_what_is_missing(unsure).startswith("best: car 0.52 at (40, 9), auto 0.25 at (0, 0)")
    again = json.loads(json.dumps(unsure.to_json_dict()))
    assert again["settings"]["not_found"] == unsure.settings["not_found"]

    best[:] = 0.9
    sam = FakeSam({None: ((ALL, ALL, ALL), (0.9, 0.9, 0.9))})
    found = by_hand(segmenter, sam).masks(encoded, dense_map(labels, best, 3), words)
    assert list(found.settings["not_found"]) == ["auto"]
    one = by_hand(segmenter, sam).masks(
        encoded, dense_map(labels, best, 2), Vocabulary.parse(["car"], ["sky"])
    )
    assert "not_found" not in one.settings and say_what_is_missing(one) == ""


def test_words_that_compete():
    words = Vocabulary.parse(["car,bus", "auto", "cat"], ["sky"])
    vectors = F.normalize(
        torch.tensor([[1, 0, 0], [0.9, 0.1, 0], [1, 0.1, 0], [0, 1, 0], [0, 1, 0.1]])
    )
    probs = np.full((4, 2, 3), 0.25)
    assert what_is_missing([1], probs, words, vectors)["compete"] == [
        ["car", "auto"], ["bus", "auto"]
    ]  # fmt: skip
    assert what_is_missing([2], probs, words, vectors)["compete"] == [["cat", "sky"]]
    assert "compete" not in what_is_missing([2], probs, words, torch.eye(5))


def blurred(features, guide, size):
    large = F.interpolate(features, size, mode="bicubic")
    return F.avg_pool2d(large, 5, stride=1, padding=2, count_include_pad=False)


def test_ones_own_upsampler(preset, image):
    own = Segmenter.from_preset(preset, device="cpu", upsampler=blurred, config=EAGER)
    result = own.segment(image, WORDS)
    assert result.settings["upsampler"] == "blurred" and result.settings["upsampler_code"]
    plain = Segmenter.from_preset(preset, device="cpu", upsampler="bicubic", config=EAGER)
    assert plain.config.upsampler == "bicubic" == plain.dense.config.upsampler
    assert not np.array_equal(plain.segment(image, WORDS).dense_map, result.dense_map)


def test_two_answers_about_loftup(preset):
    with pytest.raises(ValueError, match="use_loftup=True contradicts upsampler 'jbu': give one"):
        Segmenter.from_preset(preset, device="cpu", use_loftup=True, upsampler="jbu")


def test_near_synonyms_as_two_classes():
    segmenter = Segmenter.from_preset("tiny", device="cpu")
    found = segmenter.segment(SCENE.path, ["car", "automobile"])
    assert found.settings["compete"] == [["car", "automobile"]]
    assert 'leave one out, or write "car,automobile"' in say_what_is_missing(found)
