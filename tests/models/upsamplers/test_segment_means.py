"""Means over segments by hand, and strips against all at once."""

import torch

from models.strips import assemble
from models.upsamplers import joint_bilateral, segment_means
from models.upsamplers.base import fit_guide
from models.upsamplers.joint_bilateral import joint_bilateral_strips
from models.upsamplers.segment_means import SegmentMeans, segment, segment_mean_strips


def two_halves(height: int = 24, width: int = 40, edge: int = 17) -> torch.Tensor:
    """Left dark, right bright, with the edge beside the middle of a patch."""
    guide = torch.full((1, 3, height, width), 0.1)
    guide[..., edge:] = 0.9
    return guide


def test_an_edge_of_the_guide_becomes_one_of_the_values(monkeypatch):
    monkeypatch.setattr(segment_means, "MIN_SIZE", 60)  # the blurred edge itself has 24 pixels
    guide = two_halves()
    values = torch.tensor([[0.0, 0.2, 0.9, 1.0, 1.0]]).expand(1, 1, 3, 5)
    output = assemble(segment_mean_strips(values, guide), 24)[0, 0]
    jbu = assemble(joint_bilateral_strips(values, guide), 24)[0, 0]
    for half in (slice(0, 17), slice(17, 40)):
        expected = 0.5 * jbu[:, half] + 0.5 * jbu[:, half].mean()
        torch.testing.assert_close(output[:, half], expected, atol=1e-5, rtol=0)


def test_every_scale_has_a_say():
    guide = torch.rand(1, 3, 33, 50, generator=torch.Generator().manual_seed(0))
    guide[..., 25:] += 1
    guide = (guide / 2).clamp(0, 1)
    values = torch.randn(1, 2, 4, 6, generator=torch.Generator().manual_seed(1))
    upsampled = assemble(joint_bilateral_strips(values, guide), 33)[0]
    maps = segment(guide[0])
    assert maps.shape == (len(segment_means.SCALES), 33, 50)
    expected = upsampled / 2
    for found in maps:
        for number in found.unique():
            inside = found == number
            expected[:, inside] += upsampled[:, inside].mean(1, keepdim=True) / len(maps) / 2
    output = assemble(segment_mean_strips(values, guide), 33)[0]
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=0)


def test_strips_equal_the_whole(monkeypatch):
    guide = torch.rand(2, 3, 33, 50, generator=torch.Generator().manual_seed(2))
    values = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(3))
    monkeypatch.setattr(joint_bilateral, "_TILE", (33, 50))
    (whole,) = segment_mean_strips(values, guide)
    monkeypatch.setattr(joint_bilateral, "_TILE", (7, 20))
    strips = list(segment_mean_strips(values, guide))
    assert [strip.shape[2] for strip in strips] == [7, 7, 7, 7, 5]
    torch.testing.assert_close(assemble(iter(strips), 33), whole)


def test_a_mix_stays_between_and_a_constant_stays():
    guide = torch.rand(1, 3, 19, 34)
    values = torch.randn(1, 4, 3, 5)
    output = SegmentMeans().upsample(values, guide, (19, 34))
    assert (output <= values.amax((2, 3), keepdim=True) + 1e-5).all()
    assert (output >= values.amin((2, 3), keepdim=True) - 1e-5).all()
    same = SegmentMeans().upsample(torch.full((1, 2, 3, 5), 0.7), guide, (19, 34))
    torch.testing.assert_close(same, torch.full_like(same, 0.7))
    larger = fit_guide(guide, (38, 68))
    assert SegmentMeans().upsample(values, larger, (19, 34)).shape == (1, 4, 19, 34)
