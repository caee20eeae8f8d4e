"""Last layers that stay near the features: what they give before learning, and the fast way."""

import pytest
import torch
from torch.nn import functional as F

from models.loftup.network import LoftUp
from models.weights import load_loftup

DIM, GRID, SIZE = 8, (3, 5), (42, 70)


@pytest.fixture
def features() -> torch.Tensor:
    return torch.randn(2, DIM, *GRID, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(1))


def make(head: str, *, learnt: bool) -> LoftUp:
    torch.manual_seed(2)
    loftup = LoftUp(DIM, head)
    if learnt:
        for parameter in loftup.upsampler.head.parameters():
            torch.nn.init.normal_(parameter)
    return loftup.eval().requires_grad_(False)


def test_residual_begins_bilinear(features, image):
    loftup = make("residual", learnt=False)
    expected = F.interpolate(loftup.channelnorm(features), SIZE, mode="bilinear")
    torch.testing.assert_close(loftup(features, image), expected, atol=1e-5, rtol=1e-5)


def test_mix_begins_as_a_gaussian_of_half_a_patch(features, image):
    loftup = make("mix", learnt=False)
    weights = []
    for pixels, cells in zip(SIZE, GRID, strict=True):
        distance = (torch.arange(pixels)[:, None] + 0.5) / 14 - (torch.arange(cells) + 0.5)
        weights.append((-(distance**2) / (2 * 0.5**2)).softmax(dim=1))
    expected = weights[0] @ loftup.channelnorm(features) @ weights[1].T
    torch.testing.assert_close(loftup(features, image), expected, atol=1e-5, rtol=1e-5)


def test_mix_stays_between_its_patches(features, image):
    loftup = make("mix", learnt=True)
    patches = loftup.channelnorm(features).flatten(2)
    found = loftup(features, image).flatten(2)
    assert (found <= patches.amax(2, keepdim=True) + 1e-5).all()
    assert (found >= patches.amin(2, keepdim=True) - 1e-5).all()
    assert found.std() > 0.1


@pytest.mark.parametrize("head", ["residual", "mix"])
def test_inference_is_the_plain_computation(head, features, image, tmp_path):
    loftup = make(head, learnt=True)
    plain = loftup(features, image)  # with gradients: the modules, one after another
    with torch.no_grad():
        fast = loftup(features, image)
    assert not torch.equal(plain, fast)
    torch.testing.assert_close(fast, plain, atol=1e-4, rtol=1e-4)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert F.cosine_similarity(loftup(features, image).float(), plain, dim=1).min() > 0.97
    torch.save(loftup.state_dict(), tmp_path / "mine.pt")
    loaded = load_loftup(tmp_path / "mine.pt")
    with torch.no_grad():
        assert torch.equal(loaded(features, image), fast)


def test_unknown_heads_are_refused():
    with pytest.raises(ValueError, match="unknown head 'hat' of LoftUp; valid: projection, resid"):
        LoftUp(DIM, "hat")
