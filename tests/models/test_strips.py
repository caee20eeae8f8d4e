"""Strips: put together, and resized without the rest."""

import pytest
import torch
from torch.nn import functional as F

from models.strips import assemble, resized_rows


def test_assemble():
    whole = torch.rand(2, 3, 7, 5)
    assert torch.equal(assemble(iter(whole.split((2, 4, 1), dim=2)), 7), whole)
    assert assemble([whole], 7) is whole
    with pytest.raises(AssertionError):
        assemble(iter(whole.split((2, 4, 1), dim=2)), 8)


@pytest.mark.parametrize(("grid", "size"), [((3, 5), (20, 33)), ((6, 4), (3, 9)), ((1, 1), (4, 2))])
def test_rows_of_a_resized_map(grid, size):
    values = torch.randn(2, 3, *grid, generator=torch.Generator().manual_seed(0))
    whole = F.interpolate(values, size, mode="bilinear")
    for top, bottom in ((0, size[0]), (0, 1), (1, 3), (size[0] - 1, size[0])):
        rows = resized_rows(values, size, top, bottom)
        torch.testing.assert_close(rows, whole[:, :, top:bottom], atol=1e-5, rtol=0)
