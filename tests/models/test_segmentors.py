"""The two dense segmentors with small random models: what is tested is how the steps fit."""

import dataclasses
import logging

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from models import dense, scoring, windows
from models.clip_dense import dense_features
from models.dense import DenseResult
from models.device import fast_bfloat16
from models.loftup_sclip_segmentor import LoftUpSCLIPSegmentor
from models.pamr import pamr
from models.presets import Preset, Source
from models.sam2_masks import Sam2Masks
from models.sclip_segmentor import SCLIPSegmentor
from models.vocabulary import Vocabulary
from models.weight_files import WeightsError, WeightsNotFoundError

HEIGHT, WIDTH = 60, 101  # H ≠ W; four windows of 48 after resizing to 48x81
NAMES = ["cat", "traffic light,lamp", "tree"]


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 8, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def sharp(random_preset: Preset) -> Preset:
    """Random features hardly differ: a large scale spreads the probabilities."""
    protocol = dataclasses.replace(random_preset.protocol, logit_scale=200)
    return dataclasses.replace(random_preset, protocol=protocol)


@pytest.fixture(scope="module")
def sclip(sharp) -> SCLIPSegmentor:
    return SCLIPSegmentor("cpu", preset=sharp)


@pytest.fixture(scope="module")
def loftup(sharp) -> LoftUpSCLIPSegmentor:
    return LoftUpSCLIPSegmentor("cpu", preset=sharp)


def predict_all(segmentor: SCLIPSegmentor, image: np.ndarray) -> tuple:
    return segmentor.predict_dense(image, NAMES, return_logits=True, return_features=True)


@pytest.fixture(scope="module")
def of_sclip(sclip, image) -> tuple:
    return predict_all(sclip, image)


@pytest.fixture(scope="module")
def of_loftup(loftup, image) -> tuple:
    return predict_all(loftup, image)


@pytest.mark.parametrize("which", ["of_sclip", "of_loftup"])
def test_what_predict_dense_returns(which, request):
    seg_map, logits, features = request.getfixturevalue(which)
    assert seg_map.shape == (HEIGHT, WIDTH) and seg_map.dtype == np.int64
    assert logits.shape == (3, HEIGHT, WIDTH) and logits.dtype == torch.float32
    assert features.shape == (128, HEIGHT, WIDTH) and features.dtype == torch.float32
    # Else most comparisons of this file would say nothing.
    assert logits.std((1, 2)).max() > 1 and features.std((1, 2)).mean() > 0.1
    assert torch.equal(logits.argmax(0), torch.from_numpy(seg_map))
    probs = logits.softmax(0)
    assert probs.min() > 0 and torch.allclose(probs.sum(0), torch.ones(HEIGHT, WIDTH))


@pytest.mark.parametrize("name", ["sclip", "loftup"])
def test_return_order(name, request, image):
    segmentor = request.getfixturevalue(name)
    seg_map, logits, features = request.getfixturevalue(f"of_{name}")
    alone = segmentor.predict_dense(image, NAMES)
    assert isinstance(alone, np.ndarray) and np.array_equal(alone, seg_map)
    first, second = segmentor.predict_dense(image, NAMES, True)
    assert np.array_equal(first, seg_map) and torch.equal(second, logits)
    first, second = segmentor.predict_dense(image, NAMES, return_features=True)
    assert np.array_equal(first, seg_map) and torch.equal(second, features)


def test_without_loftup_it_is_exactly_sclip(sharp, of_sclip, image):
    segmentor = LoftUpSCLIPSegmentor("cpu", use_loftup=False, preset=sharp)
    for value, expected in zip(predict_all(segmentor, image), of_sclip, strict=True):
        assert np.array_equal(value, expected)


def test_with_loftup_it_is_not(of_loftup, of_sclip):
    for index in range(3):
        assert not np.array_equal(of_loftup[index], of_sclip[index])


def test_without_loftup_none_is_loaded(random_preset):
    preset = dataclasses.replace(random_preset, loftup="nowhere.bin")
    LoftUpSCLIPSegmentor("cpu", use_loftup=False, preset=preset)


def test_one_word_classes_have_the_softmax_of_their_cosines(sclip, image):
    names = ["cat", "dog"]
    # An image as large as a window: no stitching, so the answer can be had step by step.
    small = image[:48, :48]
    _, logits = sclip.predict_dense(small, names, return_logits=True)
    encoded = sclip.encode(small)
    assert len(encoded.windows.slices) == 1
    cosines = torch.einsum(
        "bchw,qc->bqhw", F.normalize(encoded.windows.features, dim=1), sclip.encode_text(names)
    )
    scores = F.interpolate(cosines, (48, 48), mode="bilinear")[0]
    expected = (scores * sclip.protocol.logit_scale).softmax(0)
    torch.testing.assert_close(logits.softmax(0), expected, atol=1e-4, rtol=0)


def test_synonyms_share_one_class(sclip, image):
    found = sclip.dense(image, Vocabulary.parse(NAMES))
    words = sclip.dense(image, Vocabulary.parse(["cat", "traffic light", "lamp", "tree"]))
    expected = np.stack([words.probs[0], words.probs[1:3].max(0), words.probs[3]])
    np.testing.assert_allclose(found.probs, expected, atol=1e-6)


def test_order_of_classes_does_not_matter(sclip, image, of_sclip):
    order = [2, 0, 1]
    _, logits = sclip.predict_dense(image, [NAMES[i] for i in order], return_logits=True)
    torch.testing.assert_close(logits, of_sclip[1][order], atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("name", ["sclip", "loftup"])
def test_an_encoded_image_serves_many_vocabularies(name, request, image, monkeypatch):
    segmentor = request.getfixturevalue(name)
    encoded = segmentor.encode(image)
    assert encoded.size == (HEIGHT, WIDTH) and len(encoded.windows.slices) > 1
    monkeypatch.setattr(windows, "encode_windows", None)  # must not be needed again
    for value, expected in zip(
        predict_all(segmentor, encoded), request.getfixturevalue(f"of_{name}"), strict=True
    ):
        assert np.array_equal(value, expected)
    assert segmentor.predict_dense(encoded, ["sky", "sea"]).max() <= 1


def test_any_kind_of_image(sclip, image, of_sclip, tmp_path):
    Image.fromarray(image).save(tmp_path / "image.png")
    for same in (tmp_path / "image.png", str(tmp_path / "image.png"), Image.fromarray(image)):
        assert np.array_equal(sclip.predict_dense(same, NAMES), of_sclip[0])


@pytest.mark.parametrize("size", [(1, 1), (3, 90), (90, 3), (16, 16)])
def test_small_and_thin_images(loftup, size):
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    seg_map, logits, features = predict_all(loftup, image)
    assert seg_map.shape == size and logits.shape == (3, *size) and features.shape == (128, *size)
    assert logits.isfinite().all() and features.isfinite().all()


@pytest.mark.parametrize("rows", [1, 7])
def test_strips_equal_the_whole(sclip, image, of_sclip, monkeypatch, rows):
    monkeypatch.setattr(scoring, "_STRIP_ELEMENTS", rows * 4 * WIDTH)
    seg_map, logits = sclip.predict_dense(image, NAMES, return_logits=True)
    torch.testing.assert_close(logits, of_sclip[1], atol=1e-3, rtol=1e-4)
    assert (seg_map == of_sclip[0]).mean() > 0.999


def test_windows_per_batch_do_not_matter(sharp, image, of_sclip):
    one = SCLIPSegmentor("cpu", preset=sharp, batch=1)
    torch.testing.assert_close(predict_all(one, image)[2], of_sclip[2], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("use_loftup", [False, True])
def test_whole_image(sharp, image, use_loftup):
    whole = LoftUpSCLIPSegmentor("cpu", use_loftup=use_loftup, preset=sharp, whole_image=True)
    parts = LoftUpSCLIPSegmentor("cpu", use_loftup=use_loftup, preset=sharp)
    first, second = predict_all(whole, image), predict_all(parts, image)
    assert [v.shape for v in first] == [v.shape for v in second]
    assert not torch.equal(first[1], second[1])
    # One window: nothing to stitch, both ways are the same.
    small = image[:48, :48]
    for value, expected in zip(predict_all(whole, small), predict_all(parts, small), strict=True):
        np.testing.assert_allclose(value, expected, atol=1e-3, rtol=1e-4)


def test_no_upsampling_gives_blocks(sharp, image):
    segmentor = SCLIPSegmentor("cpu", preset=sharp, upsampler="none")
    seg_map = segmentor.predict_dense(image[:48, :48], NAMES)
    blocks = seg_map.reshape(3, 16, 3, 16).swapaxes(1, 2).reshape(9, 256)
    assert (blocks == blocks[:, :1]).all()
    assert len(np.unique(seg_map)) > 1


def test_probability_upsampling_of_one_window(sclip, image):
    small = image[:48, :48]  # a window at its own size: nothing is stitched or resized
    arm = sclip.with_config(upsampled="probabilities")
    _, logits = arm.predict_dense(small, NAMES, return_logits=True)
    vocabulary = Vocabulary.parse(NAMES)
    cosines = torch.einsum(
        "bchw,qc->bqhw",
        F.normalize(arm.encode(small).windows.features, dim=1),
        arm.encode_text(vocabulary.query_words),
    )
    words = (cosines * arm.protocol.logit_scale).softmax(1)
    words = F.interpolate(words, (48, 48), mode="bilinear")[0]
    expected = torch.stack([words[0], words[1:3].amax(0), words[3]])
    probs = torch.from_numpy(arm.dense(small, vocabulary).probs)
    torch.testing.assert_close(probs, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(logits.softmax(0), expected / expected.sum(0), atol=1e-5, rtol=0)
    plain = sclip.dense(small, vocabulary).probs
    assert np.abs(plain - probs.numpy()).max() > 0.05  # the order of the steps matters


def test_probability_upsampling_of_several_windows(sharp, sclip, image):
    built = SCLIPSegmentor("cpu", preset=sharp, upsampled="probabilities")
    vocabulary = Vocabulary.parse(["cat", "tree"], background=["wall"])
    dense = built.dense(image, vocabulary)
    # Averages and enlargements of distributions are distributions.
    np.testing.assert_allclose(dense.probs.sum(0), 1, atol=1e-5)
    arm = sclip.with_config(upsampled="probabilities")
    # The words were encoded with others: the last bits may differ.
    np.testing.assert_allclose(arm.dense(image, vocabulary).probs, dense.probs, atol=1e-5)
    assert not np.array_equal(sclip.dense(image, vocabulary).probs, dense.probs)


def test_loftup_and_probability_upsampling_exclude_each_other(sharp, loftup, image):
    message = "upsampler loftup upsamples features, not probabilities: take upsampled 'features'"
    with pytest.raises(ValueError, match=message):
        LoftUpSCLIPSegmentor("cpu", preset=sharp, upsampled="probabilities")
    with pytest.raises(ValueError, match=message):
        loftup.with_config(upsampled="probabilities")
    off = loftup.with_config(upsampler="bilinear", upsampled="probabilities")
    assert off.predict_dense(image, NAMES).shape == (HEIGHT, WIDTH)


@pytest.mark.parametrize("upsampler", ["bilinear", "loftup"])
def test_a_protocol_without_windows(sharp, loftup, image, upsampler):
    protocol = dataclasses.replace(sharp.protocol, window=None)
    arm = loftup.with_config(protocol=protocol, upsampler=upsampler)
    encoded = arm.encode(image)
    assert encoded.windows.slices == [(slice(0, 48), slice(0, 81))]
    probs = arm.dense(encoded, Vocabulary.parse(NAMES)).probs
    assert probs.shape == (3, HEIGHT, WIDTH) and np.isfinite(probs).all()


def test_the_protocol_asks_for_pamr(sharp, sclip, image, monkeypatch):
    monkeypatch.setattr(dense, "PAMR_DILATIONS", (1,))
    vocabulary = Vocabulary.parse(NAMES)
    protocol = dataclasses.replace(sharp.protocol, pamr=True)
    asked = sclip.with_config(protocol=protocol).dense(image, vocabulary).probs
    assert np.array_equal(asked, sclip.with_config(use_pamr=True).dense(image, vocabulary).probs)
    assert not np.array_equal(asked, sclip.dense(image, vocabulary).probs)


def test_pamr_works_at_the_original_size_unless_told_otherwise(sharp, sclip, image, monkeypatch):
    """As published: scores and image are resized first, each bilinearly."""
    monkeypatch.setattr(dense, "PAMR_DILATIONS", (1,))
    vocabulary = Vocabulary.parse(NAMES)
    segmentor = sclip.with_config(use_pamr=True)
    encoded = segmentor.encode(image)
    scores = segmentor.scores(encoded, vocabulary)
    guide, large = (
        F.interpolate(x, (HEIGHT, WIDTH), mode="bilinear")
        for x in (encoded.windows.image, scores[None])
    )
    refined = pamr(guide, large, dense.PAMR_STEPS, (1,))[0]
    plain = sclip.with_config(use_pamr=False).classify(refined, encoded, vocabulary)
    found = segmentor.classify(scores, encoded, vocabulary)
    assert np.abs(found.probs - plain.probs).max() < 1e-6
    resized = dataclasses.replace(sharp.protocol, pamr_original=False)
    other = segmentor.with_config(protocol=resized).classify(scores, encoded, vocabulary)
    assert np.abs(found.probs - other.probs).max() > 1e-4


@pytest.mark.parametrize("attention", ["vanilla", "maskclip"])
def test_attention_is_passed_on(sharp, image, of_sclip, attention):
    segmentor = SCLIPSegmentor("cpu", preset=sharp, attention=attention)
    assert not torch.equal(predict_all(segmentor, image)[2], of_sclip[2])


def test_statistics_are_what_clip_is_fed(sclip, image):
    """ImageNet's reach its windows; a guide in RGB stays the image."""
    changed = sclip.with_config(statistics="imagenet")
    own, encoded = sclip.encode(image).windows, changed.encode(image).windows
    pixels = sclip._guide(own.image)
    torch.testing.assert_close(changed._guide(encoded.image), pixels)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    torch.testing.assert_close(encoded.image, (pixels - mean) / std)
    row, column = encoded.slices[1]
    expected = dense_features(sclip.networks.network("clip"), encoded.image[:, :, row, column])
    torch.testing.assert_close(encoded.features[1:2], expected)
    assert not torch.allclose(encoded.features, own.features, atol=1e-3)
    with pytest.raises(ValueError, match="unknown statistics 'own'; valid: clip, imagenet"):
        sclip.with_config(statistics="own")


def test_text_space(sharp, image, loftup, of_loftup):
    raw = LoftUpSCLIPSegmentor("cpu", preset=sharp, text_space="channel_norm")
    small = image[:48, :48]
    features = raw.predict_dense(small, NAMES, return_features=True)[1]
    encoded = raw.encode(small)
    expected = raw.networks.network("loftup")(encoded.windows.features, encoded.windows.image)[0]
    torch.testing.assert_close(features, expected.detach(), atol=1e-5, rtol=1e-5)
    restored = loftup.predict_dense(small, NAMES, return_features=True)[1]
    assert not torch.allclose(restored, features, atol=1e-2)


def test_pamr(sharp, image, of_sclip, monkeypatch):
    # The published dilations reach 16 pixels: on this small image they blur everything.
    monkeypatch.setattr(dense, "PAMR_DILATIONS", (1,))
    seg_map, logits, features = predict_all(
        SCLIPSegmentor("cpu", preset=sharp, use_pamr=True), image
    )
    assert not torch.equal(logits, of_sclip[1])
    assert torch.equal(features, of_sclip[2])
    assert torch.equal(logits.argmax(0), torch.from_numpy(seg_map))


def test_sam_votes(sharp, image, of_sclip, monkeypatch):
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[10:40, 20:70] = True
    assert len(np.unique(of_sclip[0][mask])) > 1
    seen = []
    record = {"segmentation": mask}
    monkeypatch.setattr(
        Sam2Masks, "automatic", lambda self, given, _: seen.append(given) or [record]
    )
    segmentor = SCLIPSegmentor("cpu", preset=sharp, use_sam=True)
    seg_map, logits, _ = predict_all(segmentor, image)
    assert np.array_equal(seen[0], image)  # at its own size, not at CLIP's
    winner = int(logits.softmax(0)[:, torch.from_numpy(mask)].mean(1).argmax())
    assert (seg_map[mask] == winner).all()
    assert np.array_equal(seg_map[~mask], of_sclip[0][~mask])
    assert torch.equal(logits, of_sclip[1])


def test_background_is_a_class_of_its_own(sclip, image):
    seg_map, logits = sclip.predict_dense(image, ["cat"], True, background=["wall", "sky"])
    assert logits.shape == (2, HEIGHT, WIDTH) and set(np.unique(seg_map)) == {0, 1}
    segmentor = sclip
    vocabulary = Vocabulary.parse(["cat", "tree"], background=["wall", "sky"])
    dense = segmentor.dense(image, vocabulary)
    assert isinstance(dense, DenseResult)
    assert dense.probs.shape == (3, HEIGHT, WIDTH)
    assert set(np.unique(dense.labels)) <= {0, 1, 2}
    assert dense.features is None
    assert dense.timings.keys() == {"clip", "text", "upsample", "classes"}


def test_thresholds_of_the_protocol(sharp, image):
    protocol = dataclasses.replace(sharp.protocol, background=("wall",), prob_thd=0.6)
    vocabulary = Vocabulary.parse(["cat", "tree"], background=["wall"])
    dense = SCLIPSegmentor("cpu", preset=sharp, protocol=protocol).dense(image, vocabulary)
    unsure = dense.probs.max(0) < 0.6
    assert unsure.any() and not unsure.all()
    assert (dense.labels[unsure] == 2).all()
    assert np.array_equal(dense.labels[~unsure], dense.probs.argmax(0)[~unsure])


def test_same_result_every_time(loftup, image, of_loftup):
    for value, expected in zip(predict_all(loftup, image), of_loftup, strict=True):
        assert np.array_equal(value, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"attention": "csb"}, "unknown attention 'csb'; valid: csa"),
        ({"upsampler": "cubic"}, "unknown upsampler 'cubic'; valid: none, bilinear, bicubic, jbu"),
        ({"upsampler": 3}, "upsampler must be one of none, .* a function .*, got 3"),
        ({"upsampler": "jbu", "upsampled": "words"}, "unknown upsampled 'words'; valid: features,"),
        ({"upsampler": "jbu", "use_loftup": True}, "use_loftup=True contradicts upsampler 'jbu'"),
        ({"upsampler": "loftup", "use_loftup": False}, "use_loftup=False contradicts upsampler"),
        ({"protocol": "voc"}, "unknown protocol 'voc'; valid: sclip-voc21"),
        ({"preset": "vit"}, "unknown preset 'vit'; valid: vit-b16, tiny"),
        ({"device": "tpu"}, "device 'tpu' is not available; here: .*cpu"),
        ({"text_space": "raw"}, "unknown text_space 'raw'; valid: restored, channel_norm"),
        ({"loftup_model_name": "loftup_clip"}, "for tiny-clip: loftup_tiny"),
        ({"loftup_model_name": "loftup"}, "unknown LoftUp 'loftup'; for tiny-clip"),
    ],
)
def test_unknown_names(random_preset, arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        LoftUpSCLIPSegmentor(**{"device": "cpu", "preset": random_preset, **arguments})
    assert "\n" not in str(error.value)


def test_a_missing_or_damaged_loftup_is_an_error(random_preset, tmp_path):
    with pytest.raises(WeightsNotFoundError, match=r"gone\.bin does not exist"):
        LoftUpSCLIPSegmentor("cpu", preset=random_preset, loftup_model_name=tmp_path / "gone.bin")
    damaged = tmp_path / "damaged.bin"
    damaged.write_bytes(random_preset.loftup.read_bytes()[:5000])
    with pytest.raises(WeightsError, match=r"damaged\.bin cannot be read"):
        LoftUpSCLIPSegmentor("cpu", preset=random_preset, loftup_model_name=damaged)
    gone = dataclasses.replace(random_preset.clip, source=Source(path=tmp_path / "clip.bin"))
    with pytest.raises(WeightsNotFoundError, match=r"clip\.bin"):
        SCLIPSegmentor("cpu", preset=dataclasses.replace(random_preset, clip=gone))


def test_a_loftup_of_another_width_is_refused(random_preset, tmp_path):
    from models.loftup.network import LoftUp

    torch.save(LoftUp(16).state_dict(), tmp_path / "narrow.bin")
    with pytest.raises(ValueError, match=r"upsamples 16 channels, the features of random have 128"):
        LoftUpSCLIPSegmentor("cpu", preset=random_preset, loftup_model_name=tmp_path / "narrow.bin")


def test_verbose(random_preset, caplog):
    caplog.set_level(logging.INFO)
    SCLIPSegmentor("cpu", preset=random_preset, verbose=False)
    assert not [r for r in caplog.records if r.name.startswith("models.")]
    LoftUpSCLIPSegmentor("cpu", preset=random_preset, verbose=True)
    assert any("loftup" in r.getMessage() for r in caplog.records if r.name.startswith("models."))


def test_share_mixes_the_scores(loftup, image):
    words = Vocabulary.parse(["cat", "tree"])
    encoded = loftup.encode(image)
    found = loftup.with_config(loftup_share=0.25).scores(encoded, words)
    first = loftup.with_config(loftup_share=1).scores(encoded, words)
    second = loftup.with_config(upsampler="bilinear").scores(encoded, words)
    torch.testing.assert_close(found, 0.25 * first + 0.75 * second, atol=1e-6, rtol=1e-5)
    assert (first - second).abs().max() > 0.01


def test_a_share_outside_its_range_is_refused(sharp):
    with pytest.raises(ValueError, match=r"loftup_share must be between 0 and 1, got 1\.5"):
        LoftUpSCLIPSegmentor("cpu", preset=sharp, loftup_share=1.5)


def test_bfloat16_of_the_whole_dense_step(sharp, loftup, image):
    if not fast_bfloat16(loftup.device):
        pytest.skip("this CPU has no instructions for bfloat16")
    rough = LoftUpSCLIPSegmentor("cpu", preset=sharp, precision="bfloat16")
    encoded = rough.encode(image)
    features = loftup.encode(image).windows.features
    assert encoded.windows.features.dtype == torch.float32
    assert 0.99 < F.cosine_similarity(encoded.windows.features, features, dim=1).min() < 1
    words = Vocabulary.parse(NAMES)
    found, exact = (x.scores(x.encode(image), words) for x in (rough, loftup))
    assert found.dtype == torch.float32 and found.shape == exact.shape
    assert 0 < (found - exact).abs().max() < 0.02


def test_synonyms_cost_a_class_nothing():
    """The trained model on the bundled scene: what is sure stays sure; as published it does not."""
    segmentor = SCLIPSegmentor("cpu", preset="tiny")
    protocol = dataclasses.replace(segmentor.protocol, merge_synonyms=False)
    published = segmentor.with_config(protocol=protocol)

    def sure(segmentor: SCLIPSegmentor, words: list[str]) -> np.ndarray:
        vocabulary = Vocabulary.parse(words, segmentor.protocol.background)
        return segmentor.dense("examples/street_scene.jpg", vocabulary).probs[:2] > 0.7

    plain = sure(segmentor, ["person", "car"])
    assert (plain.sum((1, 2)) > 500).all()
    again = ["person,human", "car,automobile"]
    kept, published_kept = (
        (sure(of, again) & plain).sum((1, 2)) / plain.sum((1, 2)) for of in (segmentor, published)
    )
    assert kept.min() > 0.85 and published_kept.max() < 0.5
