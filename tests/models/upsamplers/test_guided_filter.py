"""The guided filter by hand, and its strips against the whole."""

from unittest import mock

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from models.strips import assemble
from models.upsamplers import guided_filter as module
from models.upsamplers.guided_filter import guided_filter_strips


def smooth_noise(*shape: int) -> torch.Tensor:
    noise = torch.rand(*shape[:2], 5, 8, generator=torch.Generator().manual_seed(0))
    return F.interpolate(noise, shape[2:], mode="bilinear")


def guided_filter(
    guide: torch.Tensor, values: torch.Tensor, radius: int, eps: float = module.EPS
) -> torch.Tensor:
    """Of values at the guide's own size; images here are lower than a strip."""
    with mock.patch.multiple(module, REACH=radius, EPS=eps):
        (whole,) = guided_filter_strips(values, guide)
    return whole


@pytest.mark.parametrize("sums", [module._window_sums, module._doubled_sums])
@pytest.mark.parametrize("radius", [1, 3, 8, 20])
def test_sums_inside_the_image(radius, sums):
    x = torch.randn(3, 9, 14, generator=torch.Generator().manual_seed(0))
    found = sums(x, radius)
    for row, column in [(0, 0), (4, 7), (8, 13), (2, 12)]:
        window = x[
            :, max(0, row - radius) : row + radius + 1,
            max(0, column - radius) : column + radius + 1,
        ]  # fmt: skip
        torch.testing.assert_close(found[:, row, column], window.sum((1, 2)), atol=1e-5, rtol=0)


def test_fits_are_least_squares_with_a_ridge():
    """One window that holds the whole image: eq. 4 solved by numpy."""
    generator = torch.Generator().manual_seed(1)
    guide = torch.rand(1, 3, 4, 5, generator=generator)
    values = torch.rand(1, 1, 4, 5, generator=generator)
    eps = 0.01
    colours, targets = guide[0].flatten(1).T.numpy(), values.flatten().numpy()
    centred = colours - colours.mean(0)
    spread = centred.T @ centred / 20 + eps * np.eye(3)
    slope = np.linalg.solve(spread, centred.T @ (targets - targets.mean()) / 20)
    expected = centred @ slope + targets.mean()
    found = guided_filter(guide, values, 10, eps).flatten().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_guide_comes_through_unchanged_at_small_eps():
    guide = smooth_noise(2, 3, 20, 31)
    assert (guided_filter(guide, guide, 4, 1e-6) - guide).abs().max() < 2e-3
    blurred = guided_filter(guide, guide, 4, 10.0)  # a large one averages
    assert (blurred - guide).abs().max() > 0.05


def test_gradients_go_through():
    guide, values = smooth_noise(1, 3, 9, 14), torch.rand(1, 2, 9, 14)
    plain = guided_filter(guide, values, 2)
    found = guided_filter(guide, values.requires_grad_(), 2)
    torch.testing.assert_close(found.detach(), plain, atol=1e-5, rtol=0)
    found.sum().backward()
    assert values.grad.sum() == pytest.approx(values.numel(), rel=1e-3)  # weights sum to 1


def test_gradients_go_through_strips():
    values = torch.rand(1, 2, 3, 4, requires_grad=True)
    sum(
        strip.sum() for strip in guided_filter_strips(values, smooth_noise(1, 3, 24, 32))
    ).backward()
    assert values.grad.sum() == pytest.approx(24 * 32 * 2, rel=1e-3)


def test_many_channels_make_thinner_strips(monkeypatch):
    guide, values = smooth_noise(2, 3, 90, 40), torch.rand(2, 5, 9, 4)
    whole = assemble(guided_filter_strips(values, guide), 90)
    monkeypatch.setattr(module, "_STRIP_ELEMENTS", 0)
    strips = list(guided_filter_strips(values, guide))
    assert [strip.shape[2] for strip in strips] == [20] * 4 + [10]
    torch.testing.assert_close(torch.cat(strips, 2), whole, atol=1e-5, rtol=0)


def test_a_constant_stays():
    constant = torch.full((1, 2, 3, 4), 0.3)
    for strip in guided_filter_strips(constant, smooth_noise(1, 3, 24, 32)):
        assert torch.allclose(strip, torch.tensor(0.3), atol=1e-5)


def test_an_edge_of_the_guide_becomes_one_of_the_values():
    guide = torch.zeros(1, 3, 24, 64)
    guide[..., 32:] = 1.0
    values = torch.zeros(1, 1, 3, 8)
    values[..., 4:] = 1.0
    bilinear = F.interpolate(values, (24, 64), mode="bilinear")
    found = assemble(guided_filter_strips(values, guide), 24)
    step = (found[..., 32] - found[..., 31])[0, 0, 12]
    assert step > 0.6 > 4 * (bilinear[..., 32] - bilinear[..., 31])[0, 0, 12]


@pytest.mark.parametrize("batch", [1, 3])
def test_strips_equal_the_whole(monkeypatch, batch):
    guide = smooth_noise(batch, 3, 50, 43)
    values = torch.randn(batch, 19, 7, 6, generator=torch.Generator().manual_seed(2))
    enlarged = F.interpolate(values, (50, 43), mode="bilinear")
    whole = guided_filter(guide, enlarged, 7)
    alone = guided_filter(guide[:1], enlarged[:1], 7)
    monkeypatch.setattr(module, "_STRIP_RADII", 1)  # strips of 7 rows, the last has one
    strips = list(guided_filter_strips(values, guide))
    assert [strip.shape[2] for strip in strips] == [7] * 7 + [1]
    torch.testing.assert_close(assemble(strips, 50), whole, atol=1e-4, rtol=0)
    torch.testing.assert_close(whole[:1], alone, atol=1e-5, rtol=0)
