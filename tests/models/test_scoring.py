"""Probabilities, area threshold and prediction, by hand and against SCLIP's own step."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from models import scoring
from models.scoring import (
    apply_area_threshold,
    class_probabilities,
    class_probabilities_at,
    to_labels,
    vote_by_masks,
)
from models.vocabulary import Vocabulary
from tests.golden import load, max_error

GOLDEN = load("sclip_slide")


def test_matches_reference():
    probs = class_probabilities(
        GOLDEN["scores"], GOLDEN["word_class"], GOLDEN["logit_scale"].item()
    )
    probs = apply_area_threshold(probs, GOLDEN["area_thd"].item())
    assert max_error(probs, GOLDEN["probs"]) < 1e-5
    assert torch.equal(to_labels(probs, GOLDEN["prob_thd"].item(), 0), GOLDEN["prediction"])


def test_a_class_takes_its_best_word():
    scores = torch.tensor([1.0, 3.0, 2.0]).log()[:, None, None].expand(3, 2, 3)
    probs = class_probabilities(scores, torch.tensor([0, 1, 0]), 1.0)  # words: 1/6, 3/6, 2/6
    assert probs.shape == (2, 2, 3)
    assert torch.allclose(probs[:, 1, 2], torch.tensor([2 / 6, 3 / 6]))
    squared = class_probabilities(scores, torch.tensor([0, 1, 0]), 2.0)  # 1/14, 9/14, 4/14
    assert torch.allclose(squared[:, 0, 0], torch.tensor([4 / 14, 9 / 14]))


def test_merged_synonyms_do_not_compete():
    scores = torch.tensor([1.0, 3.0, 3.0, 2.0, 4.0]).log()[:, None, None].expand(5, 2, 3)
    word_class = torch.tensor([0, 1, 1, 2, 2])  # the last class is not merged
    probs = class_probabilities(scores, word_class, 1.0, merged=2)
    assert torch.allclose(probs[:, 1, 2], torch.tensor([1 / 10, 3 / 10, 4 / 10]))
    alone = class_probabilities(scores[[0, 1, 3, 4]], torch.tensor([0, 1, 2, 2]), 1.0)
    assert torch.allclose(probs, alone)  # an equally good synonym changes nothing


def test_probabilities_are_not_soft_maxed_again():
    words = torch.tensor([0.5, 0.2, 0.3])[:, None, None].expand(3, 2, 3)
    probs = class_probabilities(words, torch.tensor([1, 0, 0]), None)
    assert torch.equal(probs[:, 1, 2], torch.tensor([0.3, 0.5]))


def test_one_word_a_class_in_any_order():
    scores = torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(0))
    probs = class_probabilities(scores, torch.tensor([2, 0, 1]), 5.0)
    assert torch.allclose(probs, (5 * scores).softmax(0)[[1, 2, 0]])


@pytest.mark.parametrize(
    ("word_class", "message"),
    [([0, 1], "each of the 3 words"), ([0, 2, 2], "without gaps"), ([1, 1, 2], "without gaps")],
)
def test_wrong_word_classes_are_refused(word_class, message):
    with pytest.raises(ValueError, match=message):
        class_probabilities(torch.zeros(3, 2, 2), torch.tensor(word_class), 1.0)


def one_winner(labels: list[list[int]], classes: int) -> torch.Tensor:
    """Probabilities 0.6 for the given class of every pixel and 0.1 for the others."""
    onehot = torch.nn.functional.one_hot(torch.tensor(labels), classes)
    return 0.1 + 0.5 * onehot.permute(2, 0, 1).float()


def test_small_classes_lose_all_they_have():
    # Background (0) wins 5, class 1 four, class 2 one of the five foreground pixels.
    probs = one_winner([[0, 0, 0, 0, 0], [1, 1, 1, 1, 2]], 4)
    kept = apply_area_threshold(probs, 0.19)
    assert torch.equal(kept[:3], probs[:3])
    assert kept[3].eq(0).all()  # never wins
    assert torch.equal(apply_area_threshold(probs, 0.2)[2], torch.zeros(2, 5))  # at most 0.2: goes
    assert torch.equal(probs, one_winner([[0, 0, 0, 0, 0], [1, 1, 1, 1, 2]], 4))  # not in place


def test_area_threshold_with_background_last_and_without_foreground():
    probs = one_winner([[0, 0, 1, 2]], 3)
    assert torch.equal(apply_area_threshold(probs, 0.4, background_index=2)[[0, 2]], probs[[0, 2]])
    assert apply_area_threshold(probs, 0.4, background_index=2)[1].eq(0).all()
    empty = apply_area_threshold(one_winner([[0, 0]], 3), 0.1)
    assert empty[1:].eq(0).all() and empty[0].gt(0).all()


def test_unsure_pixels_become_background():
    probs = torch.tensor([[[0.1, 0.3]], [[0.3, 0.2]], [[0.5, 0.25]]])
    assert to_labels(probs).tolist() == [[2, 0]]
    assert to_labels(probs, 0.4, background_index=1).tolist() == [[2, 1]]
    assert to_labels(probs, 0.5, background_index=0).tolist() == [[2, 0]]  # not below: stays


def test_thresholds_without_a_background_are_refused():
    probs = torch.rand(3, 2, 2)
    with pytest.raises(ValueError, match=r"prob_thd 0.1 needs a background class"):
        to_labels(probs, 0.1)
    with pytest.raises(ValueError, match="one of the 3 classes, got 3"):
        to_labels(probs, 0.1, 3)
    with pytest.raises(ValueError, match="one of the 3 classes, got -1"):
        apply_area_threshold(probs, 0.1, -1)


@pytest.mark.parametrize("merge", [False, True])
def test_more_classes_than_a_byte_counts(merge, monkeypatch):
    """1,203 classes, every third with a synonym, and a background; strips of one row."""
    monkeypatch.setattr(scoring, "_STRIP_ELEMENTS", 1)
    names = [f"thing {i},other {i}" if i % 3 == 0 else f"thing {i}" for i in range(1203)]
    vocabulary = Vocabulary.parse(names, ["sky", "wall"])
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(len(vocabulary.query_words), 2, 3, generator=generator)
    probs = class_probabilities_at((5, 7), scores, vocabulary, 3.0, merge_synonyms=merge)
    assert probs.shape == (1204, 5, 7)
    large = F.interpolate(scores[None], (5, 7), mode="bilinear")[0]
    classes = torch.tensor(vocabulary.word_class)
    groups = [large[classes == k] for k in range(1204)]
    if merge:
        groups = [group.amax(0, keepdim=True) for group in groups[:-1]] + groups[-1:]
    words = torch.cat(groups).mul(3).softmax(0).split([len(group) for group in groups])
    expected = torch.stack([word.amax(0) for word in words])
    assert max_error(probs, expected) < 1e-6
    labels = to_labels(probs)
    assert labels.max() > 255 and torch.equal(labels, expected.argmax(0))


def test_masks_vote_and_the_smallest_decides():
    labels = torch.zeros(2, 3, dtype=torch.int64)
    probs = torch.tensor([[[0.9, 0.1, 0.1], [0.9, 0.9, 0.9]], [[0.1, 0.9, 0.9], [0.1, 0.1, 0.1]]])
    top_right = np.array([[0, 1, 1], [0, 0, 0]], bool)
    right = np.array([[0, 1, 1], [0, 1, 1]], bool)  # mean 0.5 each: the first class
    nothing = np.zeros((2, 3), bool)
    voted = vote_by_masks(labels, probs, [top_right, right, nothing])
    assert voted.tolist() == [[0, 1, 1], [0, 0, 0]]
    assert labels.sum() == 0
