"""The weights that a training may start from: an average of the nearest cells."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from models.loftup.network import LoftUp
from pipeline.training.loftup.config import LoftUpConfig
from pipeline.training.loftup.local_start import REACH, start_locally

DIM, GRID, SIZE = 60, (6, 8), (96, 128)


@pytest.fixture(scope="module")
def started() -> LoftUp:
    torch.manual_seed(0)
    loftup = LoftUp(DIM)
    images = [torch.randint(0, 256, (3, *SIZE), dtype=torch.uint8) for _ in range(4)]
    start_locally(loftup, GRID, images, 11, np.random.default_rng(0))
    return loftup.eval()


def _gaussian_average(grid: torch.Tensor) -> torch.Tensor:
    """(C, h, w) -> (C, H, W): every cell weighted by its distance from the pixel, in cells."""
    weights = []
    for pixels, cells in zip(SIZE, GRID, strict=True):
        places = (torch.arange(pixels) + 0.5) * cells / pixels - 0.5
        reach = REACH * (cells - 1) / (max(GRID) - 1)
        distance = (places[:, None] - torch.arange(cells)) / reach
        weights.append(torch.softmax(-(distance**2) / 2, dim=1))
    return weights[0] @ grid @ weights[1].T


def test_every_pixel_averages_the_cells_around_it(started: LoftUp) -> None:
    torch.manual_seed(1)
    features = torch.randn(1, DIM, *GRID)
    image = torch.randint(0, 256, (1, 3, *SIZE), dtype=torch.uint8)
    with torch.no_grad():
        output = started(features, image)
        wanted = _gaussian_average(started.channelnorm(features)[0])
        wanted = F.layer_norm(wanted.movedim(0, -1), (DIM,)).movedim(-1, 0)
    assert F.cosine_similarity(output[0], wanted, dim=0).mean() > 0.8
    # What the image says is only a small part; where the cells are swapped all of it changes.
    with torch.no_grad():
        moved = started(features.flip(3), image)
    assert F.cosine_similarity(moved[0], wanted, dim=0).mean() < 0.4
    assert F.cosine_similarity(moved[0].flip(2), wanted, dim=0).mean() > 0.8


def test_all_that_learns_gets_gradients(started: LoftUp) -> None:
    torch.manual_seed(2)
    features, image = torch.randn(2, DIM, *GRID), torch.rand(2, 3, *SIZE)
    started.zero_grad()
    started(features, image)[:, :, 16:48, 16:48].square().sum().backward()
    silent = [name for name, p in started.named_parameters() if p.grad is None]
    assert not silent
    for layer in started.upsampler.ca_transformer.layers:
        assert layer[0].attention.out_proj.weight.grad.abs().sum() > 0
        assert layer[1].net[4].weight.grad.abs().sum() > 0


def test_it_needs_frozen_norms() -> None:
    with pytest.raises(ValueError, match=r"freeze must be 0 with a local start, got 0\.75"):
        LoftUpConfig(local=True, freeze=0.75)
