"""PAMR against reference values and by hand."""

import pytest
import torch

from models.pamr import pamr
from tests.golden import load, max_error

GOLDEN = load("pamr")


def test_matches_reference():
    refined = pamr(
        GOLDEN["case0.image"],
        GOLDEN["case0.logits"],
        int(GOLDEN["case0.steps"]),
        GOLDEN["case0.dilations"].tolist(),
    )
    assert max_error(refined, GOLDEN["case0.output"]) < 1e-5


def test_a_plain_image_averages_the_neighbours():
    scores = torch.zeros(1, 1, 5, 7)
    scores[0, 0, 2, 3] = 8.0
    refined = pamr(torch.full((1, 3, 5, 7), 0.3), scores, 1, [1])
    expected = torch.zeros(5, 7)
    expected[1:4, 2:5] = 1.0
    expected[2, 3] = 0.0  # a pixel is not its own neighbour
    assert torch.allclose(refined[0, 0], expected, atol=1e-6)


def test_dilation_reaches_further():
    scores = torch.zeros(1, 1, 5, 7)
    scores[0, 0, 2, 3] = 8.0
    refined = pamr(torch.full((1, 3, 5, 7), 0.3), scores, 1, [2])
    reached = [tuple(p) for p in refined[0, 0].nonzero().tolist()]
    assert reached == [(0, 1), (0, 3), (0, 5), (2, 1), (2, 5), (4, 1), (4, 3), (4, 5)]


def test_scores_do_not_cross_an_edge():
    image = torch.zeros(1, 3, 12, 16)
    image[..., 8:] = 1.0
    scores = torch.zeros(1, 2, 12, 16)
    scores[:, 0, :, :8], scores[:, 1, :, 8:] = 1.0, 1.0
    refined = pamr(image, scores, 5, [1])
    assert (refined.argmax(1) == scores.argmax(1)).all()
    plain = pamr(torch.zeros_like(image), scores, 5, [1])
    assert refined[0, 0, :, 8:].max() < 0.3 * plain[0, 0, :, 8:].max()
    assert torch.allclose(refined.sum(1), torch.ones(1, 12, 16), atol=1e-5)


def test_zero_steps_only_resize():
    scores = torch.tensor([[[[0.0, 2.0]]]])
    refined = pamr(torch.rand(1, 3, 2, 3), scores, 0, [1])
    assert torch.allclose(refined[0, 0], torch.tensor([[0.0, 1.0, 2.0]] * 2))


@pytest.mark.parametrize(("steps", "dilations"), [(-1, [1]), (1, []), (1, [0, 2])])
def test_wrong_settings_are_refused(steps, dilations):
    with pytest.raises(ValueError, match="steps must be >= 0 and dilations >= 1"):
        pamr(torch.rand(1, 3, 4, 4), torch.rand(1, 2, 4, 4), steps, dilations)
