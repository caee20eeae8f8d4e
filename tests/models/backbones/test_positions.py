"""Positions on another grid, against the bicubic kernel worked out by hand."""

import numpy as np
import torch

from models.backbones.positions import resize_positions


def cubic_weights(wanted: int, trained: int) -> np.ndarray:
    """(wanted, trained): Keys' kernel, a = -0.75, sampled by the scale (wanted + 0.1) / trained.

    Pixel i lies at (i + 0.5) / scale - 0.5 of the trained ones; outside, the border goes on.
    """
    scale = (wanted + 0.1) / trained
    found = np.zeros((wanted, trained))
    for i in range(wanted):
        place = (i + 0.5) / scale - 0.5
        for k in range(int(np.floor(place)) - 1, int(np.floor(place)) + 3):
            d = abs(place - k)
            near = 1.25 * d**3 - 2.25 * d**2 + 1
            far = -0.75 * d**3 + 3.75 * d**2 - 6 * d + 3
            found[i, min(max(k, 0), trained - 1)] += near if d <= 1 else far
    return found


def test_against_a_hand_computation_on_a_grid_that_is_no_square():
    trained = np.random.default_rng(0).normal(size=(5, 4, 3))
    for h, w in ((3, 7), (8, 2), (5, 6)):
        rows, columns = cubic_weights(h, 5), cubic_weights(w, 4)
        np.testing.assert_allclose(rows.sum(1), 1)
        expected = np.einsum("hr,wc,rcd->hwd", rows, columns, trained).reshape(h * w, 3)
        found = resize_positions(torch.tensor(trained.reshape(20, 3)), (5, 4), (h, w))
        np.testing.assert_allclose(found.numpy(), expected, atol=2e-6)


def test_the_trained_grid_keeps_its_own_and_the_dtype_stays():
    trained = torch.randn(20, 3, dtype=torch.bfloat16)
    assert resize_positions(trained, (5, 4), (5, 4)) is trained
    other = resize_positions(trained, (5, 4), (4, 5))  # as many, but not the same
    assert other.dtype == torch.bfloat16 and other.shape == (20, 3)
    assert not torch.equal(other, trained)
