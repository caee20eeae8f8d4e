"""Every upsampler behind the one interface: shapes, scores against the plain way, one's own."""

import functools
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import models.networks
from models.anyup.network import AnyUp
from models.dense import Dense, DenseConfig
from models.loftup.network import LoftUp, restore_text_space
from models.loftup_sclip_segmentor import LoftUpSCLIPSegmentor
from models.naf.network import NAF
from models.networks import Networks
from models.presets import ANYUPS, LOFTUPS, NAFS
from models.sclip_segmentor import SCLIPSegmentor
from models.strips import assemble
from models.upsamplers import base as upsamplers
from models.upsamplers.base import LinearUpsampler, OwnUpsampler, Upsampler, fit_guide
from models.upsamplers.registry import UPSAMPLERS, as_upsampler, load_upsampler, upsampler_name
from models.upsamplers.trained import AnyUpUpsampler, LoftUpUpsampler, NAFUpsampler

SIZE = (33, 50)  # no multiple of the grid 5×7, nor of any tile
WORDS = ["cat", "tree"]


@functools.cache
def build(name: str) -> Upsampler:
    torch.manual_seed(0)
    if name == "loftup":
        return LoftUpUpsampler(LoftUp(16).eval().requires_grad_(False))
    if name == "anyup":
        return AnyUpUpsampler(AnyUp(16).eval().requires_grad_(False))
    if name == "naf":
        return NAFUpsampler(NAF(32).eval().requires_grad_(False))
    return load_upsampler(name)


@pytest.fixture(scope="module", params=[1, 3])
def inputs(request) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    features = torch.randn(request.param, 16, 5, 7, generator=generator)
    guide = torch.rand(request.param, 3, *SIZE, generator=generator)
    text = F.normalize(torch.randn(4, 16, generator=generator), dim=1)
    return features, guide, text


@pytest.mark.parametrize("name", UPSAMPLERS)
def test_scores_are_those_of_the_upsampled_features(name, inputs, monkeypatch):
    monkeypatch.setattr(upsamplers, "_STRIP_ELEMENTS", 3 * 16 * 50)
    features, guide, text = inputs
    upsampler = build(name)
    upsampled = upsampler.upsample(features, guide, SIZE)
    assert upsampled.shape == (len(features), 16, *SIZE) and upsampled.dtype == torch.float32
    scores = upsampler.upsample_scores(features, guide, text, SIZE)
    expected = torch.einsum("bchw,qc->bqhw", F.normalize(upsampled, dim=1), text)
    torch.testing.assert_close(scores, expected, atol=1e-4, rtol=0)
    strips = assemble(upsampler.strips(features, guide, SIZE), SIZE[0])
    torch.testing.assert_close(strips, upsampled, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", UPSAMPLERS)
def test_batch_mates_do_not_matter(name, inputs):
    features, guide, _ = inputs
    together = build(name).upsample(features, guide, SIZE)
    alone = build(name).upsample(features[-1:], guide[-1:], SIZE)
    torch.testing.assert_close(together[-1:], alone, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", [name for name in UPSAMPLERS if name not in ("loftup", "naf")])
def test_linear_ones_commute_with_the_comparison(name, inputs):
    features, guide, text = inputs
    upsampler = build(name)
    assert isinstance(upsampler, LinearUpsampler)
    products = torch.einsum("bchw,qc->bqhw", features, text)
    found = upsampler.upsample_values(products, features, guide, SIZE)
    upsampled = upsampler.upsample(features, guide, SIZE)
    expected = torch.einsum("bchw,qc->bqhw", upsampled, text)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "mode"), [("none", "nearest-exact"), ("bilinear", "bilinear"), ("bicubic", "bicubic")]
)
def test_resizing(name, mode, inputs):
    features, guide, _ = inputs
    found = build(name).upsample(features, guide, SIZE)
    assert torch.equal(found, F.interpolate(features, SIZE, mode=mode))


def test_loftup_is_brought_back_from_its_norm(inputs):
    features, guide, _ = inputs
    upsampler = build("loftup")
    raw = upsampler.loftup(features, guide)
    norm = upsampler.loftup.channelnorm.norm
    found = upsampler.upsample(features, guide, SIZE)
    assert torch.equal(found, restore_text_space(raw, features, norm))
    as_it_is = LoftUpUpsampler(upsampler.loftup, "channel_norm")
    assert torch.equal(as_it_is.upsample(features, guide, SIZE), raw)
    with pytest.raises(ValueError, match="unknown text_space 'raw'; valid: restored"):
        LoftUpUpsampler(upsampler.loftup, "raw")


@pytest.mark.parametrize("name", ["anyup", "naf"])
def test_it_sees_imagenets_normalisation(name, inputs):
    features, guide, _ = inputs
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    upsampler = build(name)
    expected = getattr(upsampler, name)((guide - mean) / std, features, (20, 31))
    found = upsampler.upsample(features, guide, (20, 31))
    torch.testing.assert_close(found, expected)


def test_a_guide_of_another_size_is_resized():
    guide = torch.rand(1, 3, 8, 12)
    assert fit_guide(guide, (8, 12)) is guide
    small = fit_guide(guide, (4, 6))
    assert small.shape == (1, 3, 4, 6)
    for name in ("jbu", "guided", "loftup", "anyup", "naf"):
        features = torch.randn(1, 16, 2, 3)
        found = build(name).upsample(features, torch.rand(1, 3, 40, 60), (20, 31))
        assert found.shape == (1, 16, 20, 31)


def nearest(features: Tensor, guide: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(features, size, mode="nearest-exact")


def test_ones_own_function(inputs):
    features, guide, text = inputs
    own = as_upsampler(nearest)
    assert isinstance(own, OwnUpsampler) and upsampler_name(own) == "nearest"
    for found, expected in zip(
        (own.upsample(features, guide, SIZE), own.upsample_scores(features, guide, text, SIZE)),
        (
            load_upsampler("none").upsample(features, guide, SIZE),
            load_upsampler("none").upsample_scores(features, guide, text, SIZE),
        ),
        strict=True,
    ):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert as_upsampler(own) is own


@pytest.mark.parametrize("result", [torch.zeros(1, 16, 5, 7), None])
def test_ones_own_function_must_give_the_size(result):
    own = as_upsampler(lambda features, guide, size: result)
    with pytest.raises(ValueError, match=r"must give a tensor of shape \(1, 16, 33, 50\)") as error:
        own.upsample(torch.zeros(1, 16, 5, 7), torch.zeros(1, 3, *SIZE), SIZE)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("own", [3, None, Upsampler, "bilinear"])
def test_what_is_no_upsampler(own):
    with pytest.raises(ValueError, match=r"upsampler must be one of none, bilinear, .* function"):
        as_upsampler(own)


def test_loading_by_name(tmp_path, monkeypatch):
    torch.save(AnyUp(16).state_dict(), tmp_path / "anyup.pth")
    torch.save(LoftUp(16).state_dict(), tmp_path / "loftup.bin")
    torch.save(NAF(32).state_dict(), tmp_path / "naf.pth")
    assert type(load_upsampler("jbu")).__name__ == "JointBilateral"
    assert load_upsampler("anyup", tmp_path / "anyup.pth").anyup.rope.freqs.shape == (2, 16)
    assert load_upsampler("naf", tmp_path / "naf.pth").naf.image_encoder.rope.periods.shape == (2,)
    assert load_upsampler("loftup", tmp_path / "loftup.bin").loftup.dim == 16
    assert load_upsampler("loftup_tiny").loftup.dim == 128
    asked = []
    monkeypatch.setattr("models.weights.load_anyup", lambda name: asked.append(name) or AnyUp(16))
    monkeypatch.setattr("models.weights.load_loftup", lambda name: asked.append(name) or LoftUp(16))
    monkeypatch.setattr("models.weights.load_naf", lambda name: asked.append(name) or NAF(32))
    for name in ("anyup", *ANYUPS, *LOFTUPS, "naf", *NAFS):
        load_upsampler(name)
    assert asked == ["anyup_multi_backbone", *ANYUPS, *LOFTUPS, "naf_release", *NAFS]
    with pytest.raises(ValueError, match=r"unknown upsampler 'loftop'; valid: none, .*loftup_sig"):
        load_upsampler("loftop")
    with pytest.raises(
        ValueError, match=r"weights 'a\.bin' need upsampler anyup or loftup or naf,"
    ):
        load_upsampler("bicubic", "a.bin")


# In the segmentor


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def anyup_file(tmp_path_factory) -> str:
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("anyup") / "anyup.pth"
    torch.save(AnyUp(16).state_dict(), path)
    return str(path)


def logits_and_features(segmentor: SCLIPSegmentor, image: np.ndarray) -> tuple[Tensor, Tensor]:
    return segmentor.predict_dense(image, WORDS, return_logits=True, return_features=True)[1:]


@pytest.mark.parametrize("upsampled", ["features", "scores", None])
@pytest.mark.parametrize("name", ["bicubic", "jbu", "guided", "anyup"])
def test_the_segmentor_uses_it(name, upsampled, random_preset, image, anyup_file):
    segmentor = SCLIPSegmentor(
        "cpu", preset=random_preset, upsampler=name, upsampled=upsampled, anyup_model=anyup_file
    )
    encoded = segmentor.encode(image)  # one window, at its own size
    guide = torch.from_numpy(image).movedim(2, 0)[None] / 255
    features, text = encoded.windows.features, segmentor.encode_text(WORDS)
    upsampler = load_upsampler(name, anyup_file if name == "anyup" else None)
    logits, found = logits_and_features(segmentor, encoded)
    expected = upsampler.upsample(features, guide, (48, 48))
    torch.testing.assert_close(found, expected[0], atol=1e-4, rtol=1e-4)
    if (upsampled or upsampler.upsampled) == "features":
        scores = upsampler.upsample_scores(features, guide, text, (48, 48))
    else:
        cosines = torch.einsum("bchw,qc->bqhw", F.normalize(features, dim=1), text)
        scores = upsampler.upsample_values(cosines, features, guide, (48, 48))
    expected = (scores[0] * segmentor.protocol.logit_scale).softmax(0)
    torch.testing.assert_close(logits.softmax(0), expected, atol=1e-3, rtol=0)


def test_naf_mixes_features_only(random_preset, image, tmp_path):
    torch.save(NAF(32).state_dict(), tmp_path / "naf.pth")
    networks = Networks(random_preset, "cpu", weights={"naf": tmp_path / "naf.pth"})
    dense = Dense(networks, DenseConfig(upsampler="naf"))
    encoded = dense.encode(image)
    guide = torch.from_numpy(image).movedim(2, 0)[None] / 255
    upsampler = load_upsampler("naf", tmp_path / "naf.pth")
    expected = upsampler.upsample(encoded.windows.features, guide, (48, 48))
    torch.testing.assert_close(dense.features(encoded), expected[0], atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="upsampler naf upsamples features, not scores"):
        DenseConfig(upsampler="naf", upsampled="scores")


def test_the_segmentor_takes_ones_own(random_preset, image):
    seen = []

    def own(features: Tensor, guide: Tensor, size: tuple[int, int]) -> Tensor:
        seen.append(guide)
        return nearest(features, guide, size)

    segmentor = LoftUpSCLIPSegmentor("cpu", preset=random_preset, upsampler=own)
    assert not segmentor.use_loftup
    plain = SCLIPSegmentor("cpu", preset=random_preset, upsampler="none")
    for found, expected in zip(
        logits_and_features(segmentor, image), logits_and_features(plain, image), strict=True
    ):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    guide = torch.from_numpy(image).movedim(2, 0)[None] / 255
    torch.testing.assert_close(seen[0], guide, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="upsampler own upsamples features, not scores: take ups"):
        SCLIPSegmentor("cpu", preset=random_preset, upsampler=own, upsampled="scores")


def test_the_example_in_the_readme_runs_as_written(random_preset, image, monkeypatch):
    readme = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    (example,) = (
        block
        for block in re.findall(r"```python\n(.*?)```", readme, re.S)
        if "def blurred" in block
    )
    assert len(example.splitlines()) == 10
    monkeypatch.setattr(models.networks, "get_preset", lambda name: random_preset)  # small
    names = {}
    exec(example, names)
    segmenter = names["segmenter"]
    result = segmenter.segment(image, WORDS)
    assert result.label_map.shape == image.shape[:2]
    assert result.settings["upsampler"] == "blurred"
    encoded = segmenter.dense.encode(image)
    guide = torch.from_numpy(image).movedim(2, 0)[None] / 255
    expected = names["blurred"](encoded.windows.features, guide, (48, 48))[0]
    found = segmenter.dense.features(encoded)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_sclip_alone_knows_no_loftup(random_preset):
    with pytest.raises(
        ValueError, match=r"upsampler 'loftup' is LoftUpSCLIPSegmentor's; .* none, .*, anyup, naf$"
    ):
        SCLIPSegmentor("cpu", preset=random_preset, upsampler="loftup")
