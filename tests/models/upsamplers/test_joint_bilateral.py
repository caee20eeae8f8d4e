"""Joint bilateral upsampling by hand."""

from unittest import mock

import pytest
import torch

from models.strips import assemble
from models.upsamplers import joint_bilateral
from models.upsamplers.joint_bilateral import joint_bilateral_strips
from models.upsamplers.registry import UPSAMPLERS


def upsample(values: torch.Tensor, guide: torch.Tensor, **settings: float) -> torch.Tensor:
    with mock.patch.multiple(joint_bilateral, **settings or {"RADIUS": joint_bilateral.RADIUS}):
        return assemble(joint_bilateral_strips(values, guide), guide.shape[2])


def by_definition(values, guide, radius, sigma_space, sigma_colour) -> torch.Tensor:
    """Kopf's formula, pixel by pixel, of one image."""
    (channels, rows, columns), (_, height, width) = values.shape, guide.shape
    colours = guide.unflatten(1, (rows, -1)).unflatten(3, (columns, -1)).mean((2, 4))
    output = torch.zeros(channels, height, width)
    for y in range(height):
        for x in range(width):
            row, column = (y + 0.5) * rows / height - 0.5, (x + 0.5) * columns / width - 0.5
            total = 0.0
            for i in range(max(0, round(row) - radius), min(rows, round(row) + radius + 1)):
                for j in range(
                    max(0, round(column) - radius), min(columns, round(column) + radius + 1)
                ):
                    space = ((i - row) ** 2 + (j - column) ** 2) / (2 * sigma_space**2)
                    colour = (guide[:, y, x] - colours[:, i, j]).square().sum()
                    weight = torch.exp(-space - colour / (2 * sigma_colour**2))
                    output[:, y, x] += weight * values[:, i, j]
                    total += weight
            output[:, y, x] /= total
    return output


def test_the_wide_one_has_another_deviation():
    values, guide = torch.rand(1, 2, 3, 4), torch.rand(1, 3, 9, 20)
    found = UPSAMPLERS["jbu_wide"].make(None, "", torch.float32).upsample(values, guide, (9, 20))
    assert torch.equal(found, upsample(values, guide, SIGMA_SPACE=0.75))
    assert not torch.equal(found, upsample(values, guide))


@pytest.mark.parametrize("tile", [(32, 64), (3, 4)])
def test_it_is_the_published_formula(monkeypatch, tile):
    monkeypatch.setattr(joint_bilateral, "_TILE", tile)
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(3, 2, 4, 5, generator=generator)
    guide = torch.rand(3, 3, 8, 15, generator=generator)
    found = upsample(values, guide, RADIUS=1, SIGMA_SPACE=0.8, SIGMA_COLOUR=0.5)
    for index in range(3):
        expected = by_definition(values[index], guide[index], 1, 0.8, 0.5)
        torch.testing.assert_close(found[index], expected, atol=1e-5, rtol=0)


def test_a_constant_stays_and_a_mix_stays_between():
    guide = torch.rand(1, 3, 19, 34)
    assert torch.allclose(upsample(torch.full((1, 2, 3, 5), 0.7), guide), torch.tensor(0.7))
    values = torch.randn(1, 4, 3, 5)
    output = upsample(values, guide)
    assert output.shape == (1, 4, 19, 34)
    assert (output <= values.amax((2, 3), keepdim=True) + 1e-6).all()
    assert (output >= values.amin((2, 3), keepdim=True) - 1e-6).all()


def test_values_do_not_cross_an_edge():
    # The edge is at column 16 of 32, the border of two cells: at once 0, then 1.
    guide = torch.zeros(1, 3, 24, 32)
    guide[..., 16:] = 1.0
    values = torch.zeros(1, 1, 3, 4)
    values[..., 2:] = 1.0
    output = upsample(values, guide)
    assert output[..., :16].max() < 1e-6 and output[..., 16:].min() > 1 - 1e-6
    blurred = upsample(values, torch.zeros_like(guide))
    assert 0.3 < blurred[0, 0, 12, 15] < 0.5 < blurred[0, 0, 12, 16] < 0.7


def test_a_colour_that_no_cell_has():
    guide = torch.zeros(1, 3, 16, 16)
    guide[:, :, 3, 3] = 100.0
    assert upsample(torch.ones(1, 1, 2, 2), guide, SIGMA_COLOUR=0.01).isfinite().all()
