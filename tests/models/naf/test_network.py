"""NAF against reference values, by hand, and its tiles and strips against the plain definition."""

import weakref

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.plain.naf import neighbours, plain_naf
from models.naf import encoders
from models.naf.network import NAF, cells_seen
from tests.golden import load, max_error, weights

GOLDEN = load("naf")


@pytest.fixture
def naf() -> NAF:
    naf = NAF(64)
    naf.load_state_dict(weights(GOLDEN), strict=True)
    return naf.eval().requires_grad_(False)


def random_inputs(
    grid: tuple[int, int], size: tuple[int, int], batch: int = 1
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(batch, 3, *size, generator=generator)
    return image, torch.randn(batch, 8, *grid, generator=generator)


@pytest.mark.parametrize("tile", [(32, 64), (7, 5)])
@pytest.mark.parametrize("case", ["case0", "case1"])
def test_matches_reference(naf, case, tile):
    naf.tile = tile
    image, features = GOLDEN[f"{case}.image"], GOLDEN[f"{case}.features"]
    assert max_error(naf(image, features), GOLDEN[f"{case}.output"]) < 1e-5
    assert max_error(plain_naf(naf, image, features), GOLDEN[f"{case}.output"]) < 1e-5


def test_the_release_has_these_keys_and_sizes():
    state = NAF().state_dict()
    assert state.keys() == weights(GOLDEN).keys()
    assert sum(p.numel() for p in NAF().parameters()) == 662_528
    assert state["image_encoder.encoder.0.weight"].shape == (128, 3, 1, 1)
    assert state["image_encoder.sem_encoder.2.conv2.weight"].shape == (128, 128, 3, 3)
    periods = state["image_encoder.rope.periods"]
    torch.testing.assert_close(periods, 100 ** (torch.arange(16) / 16))


@pytest.mark.parametrize("dim", [32, 64])
def test_periods_are_those_of_the_release(dim):
    periods = NAF(dim).image_encoder.rope.periods
    assert len(periods) == dim // 16
    if dim == 64:
        torch.testing.assert_close(periods, GOLDEN["weights.image_encoder.rope.periods"])


@pytest.mark.parametrize(
    ("grid", "size"),
    [
        ((9, 11), (36, 55)),  # whole pixels per cell: nine cells once each
        ((9, 13), (40, 50)),  # not: 4 of 4.4 pixels, 3 of 3.8
        ((10, 9), (10, 17)),  # one pixel, and not quite two
    ],
)
def test_equals_the_definition(naf, grid, size):
    image, features = random_inputs(grid, size, batch=2)
    assert max_error(naf(image, features), plain_naf(naf, image, features)) < 1e-5


@pytest.mark.parametrize("size", [(18, 20), (60, 81)])
def test_another_output_size(naf, size):
    """Smaller: the image is looked at in four times that at most."""
    image, features = random_inputs((9, 10), (80, 70))
    expected = plain_naf(naf, image, features, size)
    assert expected.shape == (1, 8, *size)
    assert max_error(naf(image, features, size), expected) < 1e-5


def test_cells_seen_by_hand():
    # 20 pixels of 10 cells, 2 each: pixels 0…9 begin at cell 0, 11 at 5 - 4, from 12 at the end.
    seen = cells_seen(20, 10)
    assert [row.nonzero()[[0, -1], 0].tolist() for row in seen[[0, 9, 10, 19]]] == [
        [0, 8],
        [0, 8],
        [1, 9],
        [1, 9],
    ]
    assert set(seen.unique().tolist()) == {0, 1}
    # 17 pixels of 9 cells: neighbours stand one pixel apart; pixel 8 sees 4…12, cells 2…6.
    assert cells_seen(17, 9)[8].tolist() == [0, 0, 2, 2, 1, 2, 2, 0, 0]


@pytest.mark.parametrize(("pixels", "cells"), [(52, 10), (70, 13), (36, 9), (31, 11), (9, 9)])
def test_cells_seen_are_those_of_the_neighbours(pixels, cells):
    cell_of = torch.nn.functional.interpolate(
        torch.arange(cells).float()[None, None], pixels, mode="nearest-exact"
    )[0, 0].long()
    for pixel, found in enumerate(cells_seen(pixels, cells)):
        around = torch.tensor(neighbours(pixel, pixels, pixels // cells))
        assert found.tolist() == torch.bincount(cell_of[around], minlength=cells).tolist()


@pytest.mark.parametrize("grid", [(1, 1), (3, 12), (8, 5)])
def test_a_small_grid_is_seen_whole(naf, grid):
    image, features = random_inputs(grid, (24, 36))
    output = naf(image, features)
    assert output.shape == (1, 8, 24, 36) and output.isfinite().all()
    for cells, pixels in zip(grid, (24, 36), strict=True):
        if cells < 9:
            assert (cells_seen(pixels, cells) > 0).all()


def test_a_pixel_is_a_convex_mix_of_the_cells_around(naf):
    image, _ = random_inputs((12, 14), (48, 56))
    assert torch.allclose(naf(image, torch.full((1, 4, 12, 14), 0.7)), torch.tensor(0.7))
    features = torch.zeros(1, 4, 12, 14)
    features[0, :, 0, 13] = 1.0
    output = naf(image, features)
    assert output.min() >= 0 and output.max() <= 1
    for head in output[0]:
        rows, columns = head.nonzero(as_tuple=True)
        # Cell row 0 is seen from cells 0…4, cell column 13 from 9…13.
        assert (rows.max(), columns.min()) == (5 * 4 - 1, 9 * 4)


def test_each_head_mixes_its_own_quarter(naf):
    image, features = random_inputs((9, 9), (36, 36))
    whole = naf(image, features)
    changed = features.clone()
    changed[:, 2:4] += 1  # the second head's
    output = naf(image, changed)
    assert torch.equal(output[:, [0, 1, 4, 5, 6, 7]], whole[:, [0, 1, 4, 5, 6, 7]])
    torch.testing.assert_close(output[:, 2:4], whole[:, 2:4] + 1)


@pytest.mark.parametrize("rows", [2, 3, 5])
@pytest.mark.parametrize("size", [(45, 70), (20, 31)])
def test_encoders_in_place_equal_the_plain_computation(naf, rows, size, monkeypatch):
    monkeypatch.setattr(encoders, "_CHUNK_PIXELS", rows * 70 * 2)
    image, features = random_inputs((9, 10), (45, 70), batch=2)
    before = image.clone()
    assert max_error(naf(image, features, size), plain_naf(naf, image, features, size)) < 1e-5
    assert torch.equal(image, before)


class Maps(TorchDispatchMode):
    """Counts the elements held at once in tensors of at least a given size."""

    def __init__(self, elements: int) -> None:
        super().__init__()
        self.elements, self.most, self.made = elements, 0, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        if isinstance(output, Tensor) and output.numel() >= self.elements:
            self.made = [made for made in (*self.made, weakref.ref(output)) if made() is not None]
            held = [tensor for made in self.made if (tensor := made()) is not None]
            stores = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in held}
            self.most = max(self.most, sum(stores.values()) // 4)
        return output


def test_one_map_of_a_large_image_is_held(naf, monkeypatch):
    monkeypatch.setattr(encoders, "_CHUNK_PIXELS", 400)
    naf.tile = (8, 16)
    image, features = random_inputs((9, 10), (90, 100))
    with torch.no_grad(), Maps(32 * 90 * 100) as maps:
        for _ in naf.strips(image, features, (90, 100)):
            pass
    assert maps.most == 64 * 90 * 100


def test_batch_mates_do_not_matter(naf):
    image, features = random_inputs((9, 10), (45, 70), batch=3)
    together = naf(image, features, (20, 31))
    alone = naf(image[1:2], features[1:2], (20, 31))
    assert max_error(together[1:2], alone) < 1e-5


def test_it_can_be_trained():
    naf = NAF(32)
    image, features = random_inputs((9, 10), (27, 32))
    output = naf(image, features)
    output.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in naf.parameters())
    with torch.no_grad():
        assert max_error(naf(image, features), output) < 1e-5


def test_wrong_inputs_are_refused(naf):
    image, features = random_inputs((9, 10), (45, 70))
    with pytest.raises(ValueError, match=r"C a multiple of 4, got \(1, 7, 9, 10\)"):
        naf(image, features[:, :7])
    with pytest.raises(ValueError, match=r"image must have shape \(1, 3, H, W\).*got \(1, 2, 45"):
        naf(image[:, :2], features)
    with pytest.raises(ValueError, match=r"H, W ≥ 2, got \(1, 3, 1, 70\)"):
        naf(image[:, :, :1], features)
    with pytest.raises(ValueError, match=r"at least 1, got \(0, 5\)"):
        naf(image, features, (0, 5))
    with pytest.raises(ValueError, match="multiple of 16 as dim, got 24"):
        NAF(24)
