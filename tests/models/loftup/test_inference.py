"""LoftUp's fast paths against its plain modules, and scores against features."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.loftup import inference as loftup_inference
from models.loftup.guide import Window
from models.loftup.inference import FoldedLoftUp
from models.loftup.network import LoftUp, restore_text_space
from models.loftup.tiles import split
from models.windows import cosine_scores
from tests.golden import max_error

DIM = 44


@pytest.fixture(scope="module")
def loftup() -> LoftUp:
    """Random weights, none of which is one or zero: every fold is seen."""
    torch.manual_seed(0)
    loftup = LoftUp(DIM)
    for name, value in loftup.state_dict().items():
        if name.endswith("running_var") or ("norm" in name and name.endswith("weight")):
            value.uniform_(0.5, 2)
        elif value.ndim == 1:
            value.normal_(std=0.3)
    for index, low in ((0, 0.5), (2, 0.5), (5, 0.5)):  # layer norm and batch norms by index
        first = loftup.upsampler.first_conv[index]
        getattr(first, "norm", first).weight.data.uniform_(low, 2)
    return loftup.eval()


@pytest.fixture
def features() -> Tensor:
    return torch.randn(3, DIM, 7, 9, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def image() -> Tensor:
    image = torch.rand(3, 3, 21, 34, generator=torch.Generator().manual_seed(4))
    image[1] *= 7  # per-image scaling must not see the other images
    return image


@pytest.fixture(params=[(1024, 112), (40, 8), (1, 4)], ids=["whole", "tiles", "rows"])
def tiling(request, monkeypatch) -> None:
    """Strips and tiles that divide neither side of the image."""
    strip, tile = request.param
    monkeypatch.setattr(loftup_inference, "_CPU_STRIP", strip)
    monkeypatch.setattr(loftup_inference, "_CPU_TILE", tile)


def plain(loftup: LoftUp, features: Tensor, image: Tensor) -> Tensor:
    with torch.enable_grad():
        output = loftup(features, image)
    assert output.requires_grad
    return output.detach()


@torch.no_grad()
def test_equals_the_plain_modules(loftup, features, image, tiling):
    expected = plain(loftup, features, image)
    assert max_error(loftup(features, image), expected) < 2e-5
    assert max_error(loftup(features[:1], image[:1]), expected[:1]) < 2e-5


@torch.no_grad()
def test_bfloat16(loftup, features, image, tiling):
    expected = plain(loftup, features, image)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = loftup(features, image)
    assert output.dtype == torch.bfloat16
    assert F.cosine_similarity(output.float(), expected, dim=1).min() > 0.999


@torch.no_grad()
def test_module_in_bfloat16(features, image):
    module = LoftUp(DIM).eval()
    expected = module(features, image)
    # The phases and statistics are rounded with the weights: autocast is closer.
    output = module.bfloat16()(features, image)
    assert output.dtype == torch.bfloat16
    assert F.cosine_similarity(output.float(), expected, dim=1).min() > 0.99


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_batch_mates_change_nothing(loftup, features, image, dtype):
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        whole = loftup(features, image)
        singles = [loftup(f[None], i[None]) for f, i in zip(features, image, strict=True)]
    assert torch.equal(whole, torch.cat(singles))


@torch.no_grad()
def test_new_weights_count_at_once(features, image):
    """Nothing folded is kept from one call to the next."""
    loftup = LoftUp(DIM).eval()
    before = loftup(features, image)
    for parameter in loftup.parameters():
        parameter.mul_(1.1).add_(0.01)
    for name, value in loftup.named_buffers():
        if value.is_floating_point():
            value.add_(0.1 if name.endswith("mean") else 0.2)
    after = loftup(features, image)
    assert max_error(after, before) > 0.01
    assert max_error(after, plain(loftup, features, image)) < 2e-5


@pytest.mark.parametrize("restore", [True, False])
@torch.no_grad()
def test_scores_equal_those_of_the_features(loftup, features, image, tiling, restore):
    text = F.normalize(torch.randn(7, DIM, generator=torch.Generator().manual_seed(5)), dim=1)
    upsampled = plain(loftup, features, image)
    if restore:
        upsampled = restore_text_space(upsampled, features, loftup.channelnorm.norm)
    expected = cosine_scores(upsampled, text)
    scores = loftup.upsample_scores(features, image, text, restore=restore)
    assert scores.dtype == torch.float32
    assert max_error(scores, expected) < 1e-5
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = loftup.upsample_scores(features, image, text, restore=restore)
    assert scores.dtype == torch.float32
    assert 1e-4 < max_error(scores, expected) < 0.02  # it was bfloat16 indeed


@pytest.mark.parametrize("size", [(1, 1), (1, 150), (130, 2), (112, 113)])
@torch.no_grad()
def test_sizes(size):
    loftup = LoftUp(4).eval()
    features, image = torch.randn(1, 4, 2, 3), torch.rand(1, 3, *size)
    assert max_error(loftup(features, image), plain(loftup, features, image)) < 2e-5


def test_wrong_calls_are_refused(loftup, image):
    features = torch.randn(3, DIM, 2, 2)
    with pytest.raises(ValueError, match=r"text must have shape \(K, 44\), got \(2, 4\)"):
        loftup.upsample_scores(features, image, torch.randn(2, 4))
    with pytest.raises(ValueError, match=r"call \.eval\(\) first"):
        LoftUp(DIM).upsample_scores(features, image, torch.randn(2, DIM))


def test_tiles_cover_the_window_once():
    tiles = list(split(Window(3, 5, 30, 17), 8))
    covered = torch.zeros(40, 30)
    for top, left, height, width in tiles:
        assert height <= 8 and width <= 8
        covered[top : top + height, left : left + width] += 1
    assert covered.sum() == 30 * 17 and covered[3:33, 5:22].min() == 1


@pytest.mark.parametrize("stage", ["_queries", "_values"])
@torch.no_grad()
def test_out_of_gpu_memory_means_smaller_tiles(stage, loftup, features, image, monkeypatch, caplog):
    expected = plain(loftup, features, image)
    monkeypatch.setattr(loftup_inference, "_CPU_TILE", 32)
    monkeypatch.setattr(loftup_inference, "_LEAST_TILE", 8)
    whole, most = getattr(FoldedLoftUp, stage), 12 * 12

    def scarce(self: FoldedLoftUp, x: Tensor, other: object) -> Tensor:
        pixels = other.height * other.width if stage == "_queries" else len(x)
        if pixels > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(self, x, other)

    monkeypatch.setattr(FoldedLoftUp, stage, scarce)
    assert max_error(loftup(features, image), expected) < 2e-5
    assert "LoftUp goes on in tiles of 16 px" in caplog.text
    most = 1
    with pytest.raises(torch.OutOfMemoryError):
        loftup(features, image)
