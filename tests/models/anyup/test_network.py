"""AnyUp against reference values, by hand, and its tiles against the whole."""

import weakref

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.plain.anyup import plain_anyup
from models.anyup import encoders as anyup_encoders
from models.anyup.network import AnyUp, window_bounds
from models.strips import assemble
from tests.golden import load, max_error, weights

GOLDEN = load("anyup")


@pytest.fixture
def anyup() -> AnyUp:
    anyup = AnyUp(32)
    anyup.load_state_dict(weights(GOLDEN), strict=True)
    return anyup.eval().requires_grad_(False)


def random_inputs(batch: int = 3, size: tuple[int, int] = (45, 70)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(batch, 3, *size, generator=generator)
    return image, torch.randn(batch, 7, 3, 5, generator=generator)


@pytest.mark.parametrize("tile", [(32, 64), (7, 5)])
@pytest.mark.parametrize(("case", "size"), [("case0", None), ("case1", (40, 42))])
def test_matches_reference(anyup, case, size, tile):
    anyup.tile = tile
    image, features = GOLDEN[f"{case}.image"], GOLDEN[f"{case}.features"]
    assert max_error(anyup(image, features, size), GOLDEN[f"{case}.output"]) < 1e-5
    plain = plain_anyup(anyup, image, features, size)
    assert max_error(plain, GOLDEN[f"{case}.output"]) < 1e-5


def test_the_releases_have_these_keys_and_sizes():
    state = AnyUp().state_dict()
    assert state.keys() == weights(GOLDEN).keys()
    assert state["rope.freqs"].shape == (2, 128)
    assert state["aggregation.0.weight"].shape == (128, 256, 3, 3)
    assert state["key_features_encoder.0.basis"].shape == (128, 1, 5, 5)


@pytest.mark.parametrize("tile", [(1, 70), (45, 1), (7, 11), (32, 64)])
def test_tiles_equal_the_whole(anyup, tile):
    image, features = random_inputs()
    anyup.tile = (45, 70)
    whole = anyup(image, features)
    anyup.tile = tile
    assert max_error(anyup(image, features), whole) < 1e-5


def test_rows_of_filter_answers_equal_all_at_once(anyup):
    image, features = random_inputs()
    whole = anyup(image, features)
    anyup.key_features_encoder[0].chunk_responses = 1  # a row of the grid at a time
    assert max_error(anyup(image, features), whole) < 1e-5


@pytest.mark.parametrize("copied", [2**25, 0])
@pytest.mark.parametrize("size", [(45, 70), (20, 31), (60, 81)])
def test_encoders_in_place_equal_the_plain_computation(anyup, copied, size, monkeypatch):
    monkeypatch.setattr(anyup_encoders, "_CHUNK_PIXELS", 3 * 70 * 2)  # two rows
    image, features = random_inputs()
    before = image.clone()
    anyup.copied, anyup.tile = copied, (23, 40)
    assert max_error(anyup(image, features, size), plain_anyup(anyup, image, features, size)) < 1e-5
    assert torch.equal(image, before)


def test_bfloat16_loses_no_more_than_the_plain_computation_does(anyup):
    image, features = random_inputs(batch=1)
    plain = plain_anyup(anyup, image, features)
    with torch.autocast("cpu", torch.bfloat16):
        loss = max_error(plain_anyup(anyup, image, features).float(), plain)
        assert max_error(anyup(image, features).float(), plain) < 1.5 * loss


class Maps(TorchDispatchMode):
    """Counts the tensors as large as a map that are held at the same time."""

    def __init__(self, elements: int) -> None:
        super().__init__()
        self.elements, self.most, self.made = elements, 0, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        if isinstance(output, Tensor) and output.numel() >= self.elements:
            self.made = [made for made in (*self.made, weakref.ref(output)) if made() is not None]
            self.most = max(self.most, len({made().data_ptr() for made in self.made}))
        return output


@pytest.mark.parametrize(("copied", "most"), [(2**25, 2), (0, 1)])
def test_one_map_of_a_large_image_is_held(anyup, copied, most, monkeypatch):
    monkeypatch.setattr(anyup_encoders, "_CHUNK_PIXELS", 400)
    anyup.tile, anyup.copied, anyup.key_features_encoder[0].chunk_responses = (8, 16), copied, 1
    image, features = random_inputs(batch=1, size=(60, 100))
    with torch.no_grad(), Maps(32 * 60 * 100) as maps:
        for _ in anyup.strips(features, image, features, (60, 100)):
            pass
    assert maps.most == most


def test_batch_mates_do_not_matter(anyup):
    image, features = random_inputs()
    together = anyup(image, features, (20, 31))
    for index in range(3):
        alone = anyup(image[index : index + 1], features[index : index + 1], (20, 31))
        assert max_error(together[index : index + 1], alone) < 1e-5


def test_a_pixel_is_a_convex_mix_of_the_cells_in_its_window(anyup):
    image, _ = random_inputs(batch=1)
    features = torch.zeros(1, 1, 10, 10)
    features[0, 0, 2, 7] = 1.0
    output = anyup(image, features, (20, 20))[0, 0]
    rows, columns = output.nonzero(as_tuple=True)
    # Cell 2 spans 0.2…0.3 of the height: seen from centres above 0.1 and below 0.4.
    assert (rows.min(), rows.max()) == (2, 7)
    assert (columns.min(), columns.max()) == (12, 17)
    assert output.min() >= 0 and output.max() <= 1
    constant = torch.full((1, 2, 10, 10), 0.7)
    mixed = assemble(anyup.strips(constant, image, features, (20, 20)), 20)
    assert torch.allclose(mixed, torch.tensor(0.7))


def test_windows_by_hand():
    # Centres 0.125, 0.375, 0.625, 0.875, each ± 0.1, of three cells.
    assert window_bounds(4, 3).tolist() == [[0, 1], [0, 2], [1, 3], [2, 3]]
    bounds = window_bounds(1000, 64)
    assert (bounds[:, 0] < bounds[:, 1]).all() and bounds.diff(dim=0).min() >= 0


def test_scores_of_the_mix_are_the_mix_of_the_scores(anyup):
    image, features = random_inputs()
    text = F.normalize(torch.randn(4, 7, generator=torch.Generator().manual_seed(2)), dim=1)
    scores = torch.einsum("bchw,qc->bqhw", features, text)
    mixed = assemble(anyup.strips(scores, image, features, (45, 70)), 45)
    expected = torch.einsum("bchw,qc->bqhw", anyup(image, features), text)
    assert max_error(mixed, expected) < 1e-5


@pytest.mark.parametrize("grid", [(1, 1), (1, 4), (3, 1)])
def test_grids_too_small_to_be_mirrored(anyup, grid):
    image, _ = random_inputs(batch=1, size=(16, 33))
    output = anyup(image, torch.randn(1, 7, *grid))
    assert output.shape == (1, 7, 16, 33) and output.isfinite().all()


def test_it_can_be_trained():
    anyup = AnyUp(8)
    image, features = random_inputs(batch=1, size=(12, 17))
    anyup(image, features).square().mean().backward()
    names = {name for name, p in anyup.named_parameters() if p.grad is None}
    assert names == {
        "cross_decode.cross_attn.attention.out_proj.weight",
        "cross_decode.cross_attn.attention.out_proj.bias",
    }


def test_wrong_inputs_are_refused(anyup):
    image, features = random_inputs()
    with pytest.raises(ValueError, match=r"shape \(B, C, h, w\), got \(7, 3, 5\)"):
        anyup(image, features[0])
    with pytest.raises(ValueError, match=r"image must have shape \(3, 3, H, W\), got \(2, 3,"):
        anyup(image[:2], features)
    with pytest.raises(ValueError, match="values must lie on the grid of the features"):
        list(anyup.strips(features[:, :, 1:], image, features, (45, 70)))
    with pytest.raises(ValueError, match="multiple of 8 as qk_dim, got 12"):
        AnyUp(12)


def test_norms_of_queries_and_keys_stay_float32_under_autocast(anyup):
    x = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
    norm = anyup.cross_decode.cross_attn.norm_q
    with torch.autocast("cpu", torch.bfloat16):
        found = norm(x)
    plain = x.float() * x.float().square().mean(2, keepdim=True).add(2**-23).rsqrt() * norm.weight
    assert found.dtype == torch.float32 and max_error(found, plain) < 1e-5
