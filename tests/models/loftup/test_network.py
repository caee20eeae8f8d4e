"""LoftUp against reference values, and by hand."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.loftup.guide import Window, scale_colours
from models.loftup.modules import GUIDE_CHANNELS
from models.loftup.network import LoftUp, restore_text_space
from tests.golden import load, max_error, weights

GOLDEN = load("loftup")


@pytest.fixture
def loftup() -> LoftUp:
    loftup = LoftUp(16)
    loftup.load_state_dict(weights(GOLDEN), strict=True)
    return loftup.eval()


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(3, 16, 3, 5, generator=generator)
    return features, torch.rand(3, 3, 21, 34, generator=generator)


@pytest.mark.parametrize("case", ["case0", "case1"])
@torch.no_grad()
def test_matches_reference(loftup, case):
    output = loftup(GOLDEN[f"{case}.lr_feats"], GOLDEN[f"{case}.image"])
    assert max_error(output, GOLDEN[f"{case}.output"]) < 1e-4


def test_official_keys_exactly():
    assert LoftUp(16).state_dict().keys() == weights(GOLDEN).keys()


def test_parameter_count_for_clip():
    count = sum(p.numel() for p in LoftUp(512).parameters())
    assert count / 1e6 == pytest.approx(7.17, abs=0.005)


def encode_guide(loftup: LoftUp, image: Tensor) -> Tensor:
    whole = Window(0, 0, *image.shape[2:])
    return loftup.upsampler.encode_guide(scale_colours(image), whole)


@torch.no_grad()
def test_guide_encoding_by_hand(loftup):
    """One pixel, checked against the formula written out."""
    image = torch.rand(2, 3, 4, 7, generator=torch.Generator().manual_seed(0))
    guide = encode_guide(loftup, image)
    assert guide.shape == (2, GUIDE_CHANNELS, 4, 7)
    biases = weights(GOLDEN)["upsampler.fourier_feat.1.biases"].double()
    row, column = 1, 5
    red, green, blue = (scale_colours(image)[1, :, row, column]).double()
    signals = [-1 + 2 * row / 3, -1 + 2 * column / 6, red, green, blue]
    for frequency, signal in [(0, 0), (3, 1), (2, 4), (7, 2)]:
        phase = signals[signal] * torch.tensor(-2 + 12 * frequency / 19).double().exp()
        flat = 5 * frequency + signal
        sine = (phase + biases[0].flatten()[flat]).sin()
        cosine = (phase + biases[1].flatten()[flat]).cos()
        assert guide[1, flat, row, column].item() == pytest.approx(sine.item(), abs=1e-3)
        assert guide[1, 100 + flat, row, column].item() == pytest.approx(cosine.item(), abs=1e-3)
    assert torch.equal(guide[:, 200:], scale_colours(image))
    part = loftup.upsampler.encode_guide(scale_colours(image), Window(1, 2, 3, 4))
    assert torch.equal(part, guide[:, :, 1:4, 2:6])


@torch.no_grad()
def test_positive_affine_changes_of_the_image_cancel():
    image = torch.rand(1, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    scaled = scale_colours(image)
    assert scaled.amin() == -0.5 and scaled.amax() == 0.5
    assert torch.allclose(scale_colours(image * 4 - 1), scaled, atol=1e-6)
    assert torch.equal(scale_colours(torch.full((1, 3, 2, 2), 9.0)), torch.full((1, 3, 2, 2), -0.5))


@torch.no_grad()
def test_guide_stays_float32_under_autocast(loftup, inputs):
    image = inputs[1]
    expected = encode_guide(loftup, image)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(encode_guide(loftup, image), expected)


def test_trains(loftup, inputs):
    loftup.train()(*inputs).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in loftup.parameters())


def test_restore_text_space_inverts_the_channel_norm():
    generator = torch.Generator().manual_seed(1)
    norm = nn.LayerNorm(16)
    nn.init.uniform_(norm.weight, 0.5, 2.0, generator=generator)
    nn.init.normal_(norm.bias, generator=generator)
    features = torch.randn(2, 16, 4, 6, generator=generator) * 3 + 1
    normalised = norm(features.movedim(1, -1)).movedim(-1, 1)
    with torch.no_grad():
        assert max_error(restore_text_space(normalised, features, norm), features) < 1e-5
        bigger = restore_text_space(F.interpolate(normalised, (9, 20)), features, norm)
    assert bigger.shape == (2, 16, 9, 20)


def test_wrong_inputs_are_refused(loftup):
    image = torch.rand(2, 3, 8, 8)
    with pytest.raises(ValueError, match=r"features must have shape \(B, 16, h, w\)"):
        loftup(torch.rand(2, 12, 2, 2), image)
    with pytest.raises(ValueError, match=r"image must have shape \(1, 3, H, W\)"):
        loftup(torch.rand(1, 16, 2, 2), image)
    with pytest.raises(ValueError, match="multiple of 4 channels, got 15"):
        LoftUp(15)
