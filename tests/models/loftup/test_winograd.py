"""The fast convolution against the direct one."""

import pytest
import torch
from torch.nn import functional as F

from models.loftup.winograd import transform_weight, winograd


@pytest.mark.parametrize(
    ("height", "width"), [(4, 8), (1, 1), (7, 10), (13, 6)]
)  # blocks of 4 fit, or not
def test_equals_the_direct_convolution(height, width):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(height + 2, width + 2, 5, generator=generator)
    weight = torch.randn(6, 5, 3, 3, generator=generator)
    expected = F.conv2d(x.double().permute(2, 0, 1), weight.double()).permute(1, 2, 0)
    found = winograd(x, transform_weight(weight))
    assert found.shape == (height, width, 6) and found.dtype == torch.float32
    torch.testing.assert_close(found, expected.float(), atol=1e-5, rtol=1e-5)


def test_is_exact_but_for_rounding():
    """In double precision nothing is left; the usual points would leave 3e-5 in float32."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(18, 22, 128, generator=generator, dtype=torch.float64)
    weight = torch.randn(32, 128, 3, 3, generator=generator, dtype=torch.float64) / 34
    exact = F.conv2d(x.permute(2, 0, 1), weight).permute(1, 2, 0)
    assert (winograd(x, transform_weight(weight)) - exact).abs().max() < 1e-13
    error = (winograd(x.float(), transform_weight(weight.float())) - exact).abs().max()
    assert error < 1e-5
