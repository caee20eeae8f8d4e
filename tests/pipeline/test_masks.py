"""Choosing, accepting, merging and resolving masks: small cases by hand, random ones by loops."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from pipeline.masks import choose_candidates, merge_overlapping, resolve_label_map
from pipeline.regions import Region


def mask_of(*rows: str) -> np.ndarray:
    return np.array([[character == "#" for character in row] for row in rows])


def logits_of(*masks: np.ndarray) -> np.ndarray:
    return np.where(np.stack(masks), 3.0, -3.0).astype(np.float32)


FULL = np.ones((4, 4), bool)
LEFT = mask_of("##..", "##..", "##..", "##..")
CORNER = mask_of("##..", "##..", "....", "....")


def prompt_of(mask: np.ndarray) -> dict[str, Any]:
    return {"component": Region.from_mask(mask)}


def test_agreement_by_hand() -> None:
    # The image is 8 × 4: a cell of the 4 × 4 grid is 2 rows × 1 column.
    component = np.zeros((8, 4), bool)
    component[:8, :2] = True  # covers exactly LEFT
    component[6:7, 3] = True  # and half of the lower right cell: 8.5 cells
    low_res, prompts = logits_of(FULL, LEFT, CORNER), [prompt_of(component)]
    for i, expected in enumerate((8.5 / 16, 8 / 8.5, 4 / 8.5)):
        _, agreement = choose_candidates(low_res[None, i : i + 1], [[0.5]], prompts, (8, 4))
        np.testing.assert_allclose(agreement, [expected], rtol=1e-6)
    index, agreement = choose_candidates(low_res[None], [[0.2, 0.5, 0.9]], prompts, (8, 4))
    assert index.tolist() == [1]  # 0.2·0.53, 0.5·0.94, 0.9·0.47
    np.testing.assert_allclose(agreement, [8 / 8.5], rtol=1e-6)


def test_rules_choose_differently() -> None:
    low_res = logits_of(FULL, LEFT, CORNER)[None]
    prompts, iou = [prompt_of(LEFT)], [[0.9, 0.4, 0.8]]  # agreements 0.5, 1, 0.5
    chosen = {
        rule: choose_candidates(low_res, iou, prompts, (4, 4), rule=rule)[0].item()
        for rule in ("iou", "agreement", "product")
    }
    assert chosen == {"iou": 0, "agreement": 1, "product": 0}


def test_rows_are_independent_and_share_components() -> None:
    low_res = np.stack([logits_of(FULL, LEFT, CORNER), logits_of(CORNER, FULL, LEFT)])
    low_res = np.concatenate([low_res, low_res])
    iou = np.full((4, 3), 0.7)
    left, corner = prompt_of(LEFT), prompt_of(CORNER)
    index, agreement = choose_candidates(low_res, iou, [left, corner, corner, left], (4, 4))
    assert index.tolist() == [1, 0, 2, 2]
    np.testing.assert_allclose(agreement, 1)


def test_region_smaller_than_a_cell_is_seen() -> None:
    component = np.zeros((40, 80), bool)
    component[12:18, 24:34] = True  # 60 pixels; a cell has 200 and this lies in cell (1, 1)
    hit, miss = np.zeros((2, 4, 4), bool)
    hit[1, 1], miss[2, 1] = True, True
    low_res, prompts = logits_of(FULL, miss, hit)[None], [prompt_of(component)]
    index, agreement = choose_candidates(low_res, np.full((1, 3), 0.8), prompts, (40, 80))
    assert index.tolist() == [2]
    np.testing.assert_allclose(agreement, [0.3], rtol=1e-5)
    _, agreement = choose_candidates(low_res[:, :1], [[0.8]], prompts, (40, 80))
    np.testing.assert_allclose(agreement, [0.3 / 16], rtol=1e-5)


def test_empty_candidates_agree_with_nothing() -> None:
    low_res = logits_of(*np.zeros((3, 4, 4), bool))[None]
    _, agreement = choose_candidates(low_res, np.ones((1, 3)), [prompt_of(LEFT)], (4, 4))
    assert agreement.tolist() == [0]
    nothing = choose_candidates(np.zeros((0, 3, 4, 4)), np.zeros((0, 3)), [], (4, 4))
    assert [len(part) for part in nothing] == [0, 0]


@pytest.mark.parametrize("iou", [[2.5, 1.0, 0.0], [-0.5, 0.1, -0.9]])
def test_predicted_iou_is_clamped_before_the_product(iou: list[float]) -> None:
    low_res = logits_of(FULL, LEFT, ~LEFT)[None]  # agreements 0.5, 1, 0
    index, _ = choose_candidates(low_res, [iou], [prompt_of(LEFT)], (4, 4))
    assert index.tolist() == [1]


def test_choose_refuses_what_does_not_fit() -> None:
    low_res, prompts = np.zeros((1, 3, 4, 4)), [prompt_of(LEFT)]
    with pytest.raises(ValueError, match="'best'; valid ones: product, iou, agreement"):
        choose_candidates(low_res, np.ones((1, 3)), prompts, (4, 4), rule="best")
    with pytest.raises(ValueError, match=r"\(N, C, L, L\), got shape \(3, 4, 4\)"):
        choose_candidates(low_res[0], np.ones((1, 3)), prompts, (4, 4))
    with pytest.raises(ValueError, match="there are 2 prompts"):
        choose_candidates(low_res, np.ones((1, 3)), prompts * 2, (4, 4))
    with pytest.raises(ValueError, match="finite"):
        choose_candidates(low_res, [[1, np.nan, 1]], prompts, (4, 4))
    with pytest.raises(ValueError, match="leaves the image"):
        choose_candidates(low_res, np.ones((1, 3)), prompts, (3, 4))


def merged(masks: Sequence[np.ndarray], *rest: Any) -> list[list[int]]:
    """Loose boxes change nothing."""
    groups = merge_overlapping([Region.from_mask(mask) for mask in masks], *rest)
    assert groups == merge_overlapping([Region(0, 0, mask) for mask in masks], *rest)
    return groups


def resolved(masks: Sequence[np.ndarray], *rest: Any) -> list[list[int]]:
    labels = resolve_label_map([Region.from_mask(mask) for mask in masks], *rest)
    loose = resolve_label_map([Region(0, 0, mask) for mask in masks], *rest)
    assert labels.dtype == loose.dtype == np.uint8 and np.array_equal(labels, loose)
    return labels.tolist()


TWELVE = mask_of("###.", "###.", "###.", "###.")  # IoU 0.75 with FULL, 2/3 with LEFT


@pytest.mark.parametrize(
    ("threshold", "groups"),
    [
        (0.76, [[1], [0], [2]]),
        (0.75, [[1], [0], [2]]),  # more than the threshold, not equal to it
        (0.74, [[1, 2], [0]]),  # LEFT is like TWELVE only, which is taken
        (0.49, [[1, 0, 2]]),
        (1.0, [[1], [0], [2]]),
    ],
)
def test_merge_by_hand(threshold: float, groups: list[list[int]]) -> None:
    assert merged([LEFT, FULL, TWELVE], [5, 5, 5], [0.7, 0.9, 0.6], threshold) == groups


def test_merge_keeps_classes_apart_and_breaks_ties_by_index() -> None:
    assert merged([FULL] * 4, [1, 2, 1, 2], [0.8, 0.8, 0.8, 0.9], 0.5) == [[3, 1], [0, 2]]
    assert merged([FULL] * 4, [1, 1, 1, 1], [0.8] * 4, 1.0) == [[0], [1], [2], [3]]


def test_empty_masks_and_none_at_all() -> None:
    assert merged(np.zeros((2, 4, 4), bool), [1, 1], [0.5, 0.6], 0.0) == [[1], [0]]
    assert merged([], [], [], 0.8) == []


def random_masks(seed: int, count: int = 14) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    masks = []
    for _ in range(count):
        mask = np.zeros((11, 17), bool)
        top, left = rng.integers(0, 5), rng.integers(0, 8)
        crop = mask[top : top + rng.integers(3, 8), left : left + rng.integers(3, 10)]
        crop[:] = rng.random(crop.shape) < 0.9
        masks.append(mask)
    return masks, rng.integers(0, 3, count), rng.random(count).round(1)


def plain_groups(masks: list, ids: np.ndarray, scores: np.ndarray, threshold: float) -> list:
    """The merging rule without shortcuts."""
    left = sorted(range(len(masks)), key=lambda i: (-scores[i], i))
    groups = []
    while left:
        best = left[0]
        group = [best]
        for other in left[1:]:
            both, any_ = masks[best] & masks[other], masks[best] | masks[other]
            if ids[best] == ids[other] and both.sum() / any_.sum() > threshold:
                group.append(other)
        left = [i for i in left if i not in group]
        groups.append(group)
    return groups


@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.5])
def test_merge_equals_the_plain_rule(threshold: float) -> None:
    taken = 0
    for seed in range(20):
        masks, ids, scores = random_masks(seed)
        groups = merged(masks, ids, scores, threshold)
        assert groups == plain_groups(masks, ids, scores, threshold)
        taken += len(masks) - len(groups)
    assert taken > 0


def test_merge_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"iou_threshold must be within 0..1, got 1.5"):
        merged([FULL], [0], [1.0], 1.5)
    with pytest.raises(ValueError, match="got 1, 2 and 1"):
        merged([FULL], [0, 1], [1.0], 0.5)


def test_resolve_by_score_alone() -> None:
    top, left = mask_of("###", "..."), mask_of("#..", "#..")
    assert resolved([top, left], [2, 0], [0.5, 0.6], None, (2, 3)) == [[1, 3, 3], [1, 0, 0]]
    # Equal scores: the earlier mask; a score of 0 still beats no mask.
    assert resolved([top, left], [2, 0], [0, 0], None, (2, 3)) == [[3, 3, 3], [1, 0, 0]]


def test_resolve_by_score_times_probability() -> None:
    both = np.ones((1, 3), bool)
    probs = np.array([[[0.9, 0.5, 0.2]], [[0.1, 0.5, 0.8]]])  # (K, H, W)
    assert resolved([both, both], [0, 1], [0.9, 0.9], probs, (1, 3)) == [[1, 1, 2]]
    # 0.9·0.4, 0.5·0.4, 0.2·0.4 against 0.1·0.8, 0.5·0.8, 0.8·0.8
    assert resolved([both, both], [0, 1], [0.4, 0.8], probs, (1, 3)) == [[1, 2, 2]]
    # A mask counts only inside itself.
    last = mask_of("..#")
    assert resolved([last, both], [0, 1], [1, 1], probs, (1, 3)) == [[2, 2, 2]]
    assert resolved([last], [0], [1], probs, (1, 3)) == [[0, 0, 1]]


def test_resolve_many_classes_and_none() -> None:
    mask = Region(0, 0, mask_of("#"))
    for class_id, count, dtype in (
        (253, None, np.uint8), (254, None, np.uint16),  # the highest index is all that is known
        (3, 254, np.uint8), (3, 255, np.uint16), (1202, 1203, np.uint16),
    ):  # fmt: skip
        probs = count and np.ones((count, 1, 2), np.float16)
        labels = resolve_label_map([mask], [class_id], [1], probs, (1, 2))
        assert (labels.dtype, labels.tolist()) == (dtype, [[class_id + 1, 0]])
    assert resolved([], [], [], None, (2, 3)) == [[0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("seed", range(5))
def test_label_map_is_consistent_with_the_masks(seed: int) -> None:
    masks, ids, scores = random_masks(seed)
    probs = np.random.default_rng(seed + 100).dirichlet(np.ones(3), (11, 17)).transpose(2, 0, 1)
    labels = resolved(masks, ids, scores, probs, (11, 17))
    for y, x in np.ndindex(11, 17):
        here = [i for i in range(len(masks)) if masks[i][y, x]]
        values = [np.float32(probs[ids[i], y, x]) * np.float32(scores[i]) for i in here]
        expected = ids[here[int(np.argmax(values))]] + 1 if here else 0
        assert labels[y][x] == expected
    order = np.random.default_rng(seed).permutation(len(masks))  # random values do not tie
    shuffled = [masks[i] for i in order]
    assert resolved(shuffled, ids[order], scores[order], probs, (11, 17)) == labels


def test_resolve_refuses_what_does_not_fit() -> None:
    mask = Region(0, 0, np.ones((2, 3), bool))
    with pytest.raises(ValueError, match=r"leaves the image of size \(3, 2\) \(H, W\)"):
        resolve_label_map([mask], [0], [1], None, (3, 2))
    with pytest.raises(ValueError, match=r"\(K, H, W\).*got shape \(2, 3, 4\)"):
        resolve_label_map([mask], [0], [1], np.ones((2, 3, 4)), (2, 3))
    with pytest.raises(ValueError, match=r"class_ids must be 0..1, got 2..2"):
        resolve_label_map([mask], [2], [1], np.ones((2, 2, 3)), (2, 3))
    with pytest.raises(ValueError, match=r"0 or more, got -0\.5"):
        resolve_label_map([mask], [0], [-0.5], None, (2, 3))
