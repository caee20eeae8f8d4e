"""Prompt points on hand-made maps, and properties on random ones."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from pipeline.points import STRATEGIES
from pipeline.prompts import Prompt, extract_prompt_points_from_upsampled

LETTERS = ".abc"  # the classes of hand-made maps; "." is the background, index 0
NAMES = ["background", "ape", "boat", "cat"]


def seg_of(*rows: str) -> np.ndarray:
    return np.array([[LETTERS.index(letter) for letter in row] for row in rows])


def probs_of(seg_map: np.ndarray, confidence: Any = 0.9, count: int = 4) -> np.ndarray:
    """(H, W, K): the pixel's own class has `confidence`, the others share the rest."""
    confidence = np.broadcast_to(np.asarray(confidence, np.float32), seg_map.shape)
    probs = np.repeat((1 - confidence)[..., None] / (count - 1), count, axis=2)
    np.put_along_axis(probs, seg_map[..., None], confidence[..., None], axis=2)
    return probs


def prompts_of(seg_map: np.ndarray, confidence: Any = 0.9, **options: Any) -> list[Prompt]:
    options = {"min_region_size": 1, "background_idx": 0} | options
    return extract_prompt_points_from_upsampled(
        seg_map, probs_of(seg_map, confidence), NAMES, **options
    )


C_SHAPE = seg_of(
    "..........",
    ".aaaaaaaa.",
    ".aaaaaaaa.",
    ".aaaaaaaa.",
    ".aa.......",
    ".aa.......",
    ".aa.......",
    ".aaaaaaaa.",
    ".aaaaaaaa.",
    "..........",
    "..........",
)


def test_everything_about_one_region() -> None:
    seg_map = seg_of(
        ".......",
        "..bbb..",
        "..bbb..",
        "..bbbb.",
        ".......",
    )
    confidence = np.full(seg_map.shape, 0.8)
    confidence[3, 5] = 0.6  # belongs to the component, is not confident
    confidence[2, 3] = 0.96
    (prompt,) = prompts_of(seg_map, confidence)
    assert prompt["point"] == (3, 2) and prompt["points"] == [(3, 2)]
    assert (prompt["class_idx"], prompt["class_name"]) == (2, "boat")
    assert prompt["confidence"] == pytest.approx((8 * 0.8 + 0.96) / 9)
    assert prompt["region_size"] == 9 and prompt["box"] == (2, 1, 5, 4)
    assert prompt["negative_points"] == []
    component = prompt["component"].paste(seg_map.shape)
    np.testing.assert_array_equal(component, seg_map == 2)
    component[3, 5] = False
    np.testing.assert_array_equal(prompt["region"].paste(seg_map.shape), component)
    assert all(type(number) is int for number in (*prompt["point"], prompt["class_idx"]))


def test_defaults_ask_for_confidence_and_size() -> None:
    seg_map = np.ones((14, 30), int)
    seg_map[:, 10:] = 2
    seg_map[:, 12:] = 3
    confidence = np.where(seg_map == 1, 0.7, 0.9)
    confidence[seg_map == 3] = 0.69
    probs = probs_of(seg_map, confidence)
    prompts = extract_prompt_points_from_upsampled(seg_map, probs, NAMES)
    # 14 × 10 pixels at 0.7 pass; 14 × 2 are too few, and 0.69 is too unsure.
    assert [(p["class_name"], p["region_size"]) for p in prompts] == [("ape", 140)]


def test_a_least_confidence_for_each_class() -> None:
    seg_map = seg_of("aaabbbccc", "aaabbbccc")
    confidence = np.where(seg_map == 1, 0.7, np.where(seg_map == 2, 0.4, 0.95))
    for least, found in (
        ([0.7] * 4, ["ape", "cat"]),  # 0.7 passes as it does alone, in the type of the map
        ((0, 0.7, 0.4, 0.96), ["ape", "boat"]),
        (np.array([1, 0.71, 0.41, 0.95]), ["cat"]),
    ):
        prompts = prompts_of(seg_map, confidence, min_confidence=least)
        assert [p["class_name"] for p in prompts] == found
        assert all(p["region_size"] == 6 for p in prompts)


@pytest.mark.parametrize(("min_size", "count"), [(3, 2), (4, 1), (5, 0)])
def test_min_region_size_is_inclusive(min_size: int, count: int) -> None:
    prompts = prompts_of(seg_of("aa.bb", "aa..b"), min_region_size=min_size)
    assert len(prompts) == count


def test_diagonal_neighbours_are_one_region_and_touching_classes_are_two() -> None:
    prompts = prompts_of(seg_of("a..b", ".aab", "...b"))
    assert [(p["class_name"], p["region_size"]) for p in prompts] == [("ape", 3), ("boat", 3)]


def test_component_joins_regions_that_doubt_separates() -> None:
    seg_map = seg_of("aaaaa.a")
    prompts = prompts_of(seg_map, [[0.9, 0.9, 0.2, 0.9, 0.8, 0.9, 0.9]])
    assert [p["region_size"] for p in prompts] == [2, 2, 1]
    joined = prompts[0]["component"]
    assert joined is prompts[1]["component"]
    assert joined.box == (0, 0, 5, 1) and joined.area == 5
    assert prompts[2]["component"].box == (6, 0, 7, 1)


def test_order_is_class_then_size_then_reading() -> None:
    prompts = prompts_of(seg_of("b.a.a", ".....", "aa..b", "....b"))
    found = [(p["class_name"], p["region_size"], p["point"]) for p in prompts]
    assert found == [
        ("ape", 2, (0, 2)),
        ("ape", 1, (2, 0)),
        ("ape", 1, (4, 0)),
        ("boat", 2, (4, 2)),
        ("boat", 1, (0, 0)),
    ]


BAR = seg_of("." * 12, *["." + "a" * 10 + "."] * 3, "." * 12)
ROW = seg_of(".......", ".aaaaa.", ".......", ".......")
CLICKS = {
    # Sums: 46 pixels, x 190, y 202 → (4.13, 4.39), outside; row 3 is 1.39 above, column 2 is 2.13
    # left.
    "centroid outside": (C_SHAPE, [], "centroid", (4, 3)),
    "centroid inside": (seg_of(".......", ".aaaaa.", ".aaaa.."), [], "centroid", (3, 1)),  # of 2.78
    # The only pixels two steps from the outline are those of row 2; of x = 2..7 the one nearest
    # to the centroid's x of 4.13.
    "pole of the thick arm": (C_SHAPE, [], "pole", (4, 2)),
    "pole drawn to probability": (BAR, [(np.s_[:, 8:], 0.9)], "pole", (8, 2)),
    # Twice as deep outweighs 0.9 against 0.8: the outline stays unclicked.
    "pole deep before probable": (BAR, [(1, 0.9)], "pole", (5, 2)),
    "the border is outline": (seg_of(*["aaaaa.."] * 5), [], "pole", (2, 2)),
    **{f"line, {name}": (ROW, [], name, (3, 1)) for name in ("pole", "centroid", "peak")},
    **{f"upright line, {name}": (ROW.T, [], name, (1, 3)) for name in ("pole", "centroid", "peak")},
    "planted peak": (np.ones((9, 14), int), [((7, 12), 0.95)], "peak", (12, 7)),
    # The first is nearer to the centroid.
    "the deepest of equal peaks": (C_SHAPE, [((3, 4), 0.95), ((2, 7), 0.95)], "peak", (7, 2)),
}


@pytest.mark.parametrize(("seg_map", "higher", "strategy", "point"), CLICKS.values(), ids=CLICKS)
def test_clicks(seg_map: np.ndarray, higher: list, strategy: str, point: tuple[int, int]) -> None:
    confidence = np.full(seg_map.shape, 0.8)
    for where, value in higher:
        confidence[where] = value
    assert [p["point"] for p in prompts_of(seg_map, confidence, strategy=strategy)] == [point]


def test_multi_spreads_points_over_the_interior() -> None:
    seg_map = np.zeros((9, 21), int)
    seg_map[1:8, 1:20] = 1  # 7 × 19, deepest 4: the half-deep interior is x 2..18, y 2..6
    (prompt,) = prompts_of(seg_map, strategy="multi", points_per_region=4)
    # All four interior corners are √68 from the pole, and two stay so after the first. Then (5, 6)
    # and (15, 6) are 5 from a corner and √29 from the pole; the corners left are only 4 away.
    assert prompt["points"] == [(10, 4), (2, 2), (18, 2), (5, 6)]
    assert prompt["point"] == (10, 4)
    (fewer,) = prompts_of(seg_map, strategy="multi", points_per_region=2)
    assert fewer["points"] == prompt["points"][:2]


def test_multi_gives_no_point_twice() -> None:
    (prompt,) = prompts_of(seg_of("....", ".aa.", "...."), strategy="multi", points_per_region=5)
    assert sorted(prompt["points"]) == [(1, 1), (2, 1)]


NEIGHBOURS = seg_of(
    "aaa......bbb",
    "aaa......bbb",
    "aaa......bbb",
    "............",
    "............",
    "....ccc..aaa",
    "....ccc..aaa",
    "....ccc..aaa",
)


def test_negative_points_are_the_nearest_poles_of_other_classes() -> None:
    prompts = prompts_of(NEIGHBOURS, negative_points=2, min_region_size=9)
    negatives = {p["point"]: p["negative_points"] for p in prompts}
    background = (5, 2)  # the pole of the 60 background pixels, which are never prompted
    a, b, c, low_a = (1, 1), (10, 1), (5, 6), (10, 6)
    assert set(negatives) == {a, b, c, low_a}
    # Distances from the prompt's region; equal ones in reading order.
    assert negatives[a] == [background, c]  # 3, 5; then b 8
    assert negatives[b] == [background, low_a]  # 4, 4; then c √32
    assert negatives[c] == [background, low_a]  # 3, 4; then a 5
    assert negatives[low_a] == [b, c]  # 4, 4; then background 5


def test_negative_points_never_come_from_the_same_class() -> None:
    (first, second) = prompts_of(seg_of("aa.aa", "aa.aa"), negative_points=3, background_idx=None)[
        1:
    ]
    assert first["class_name"] == second["class_name"] == "ape"
    assert first["negative_points"] == second["negative_points"] == [(2, 0)]
    assert prompts_of(seg_of("aaa", "aaa"), negative_points=3)[0]["negative_points"] == []


def test_all_classes_are_prompted_without_background() -> None:
    names = [p["class_name"] for p in prompts_of(NEIGHBOURS, background_idx=None)]
    assert names == ["background", "ape", "ape", "boat", "cat"]


def test_no_confident_region_gives_no_prompts() -> None:
    assert prompts_of(NEIGHBOURS, 0.5) == []
    assert prompts_of(np.zeros((3, 5), int)) == []


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_precisions_give_the_same_points(dtype: type) -> None:
    probs = probs_of(NEIGHBOURS, 0.75)
    expected = extract_prompt_points_from_upsampled(NEIGHBOURS, probs, NAMES, min_region_size=1)
    prompts = extract_prompt_points_from_upsampled(
        NEIGHBOURS.astype(np.uint8), probs.astype(dtype), NAMES, min_region_size=1
    )
    assert [p["point"] for p in prompts] == [p["point"] for p in expected]


def random_map(seed: int, count: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    smooth = [ndimage.gaussian_filter(rng.normal(size=(33, 47)), 3) for _ in range(count)]
    logits = np.stack(smooth, axis=-1) * 40
    probs = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    return probs.argmax(axis=-1), probs.astype(np.float32)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("seed", range(4))
def test_points_lie_where_they_should(strategy: str, seed: int) -> None:
    seg_map, probs = random_map(seed)
    prompts = extract_prompt_points_from_upsampled(
        seg_map, probs, NAMES, 0.6, 5, strategy=strategy, negative_points=2, background_idx=0
    )
    assert len(prompts) > 3
    covered = np.zeros(seg_map.shape, int)
    for prompt in prompts:
        own = prompt["class_idx"]
        region = prompt["region"].paste(seg_map.shape)
        component = prompt["component"].paste(seg_map.shape)
        assert len(set(prompt["points"])) == len(prompt["points"])
        assert all(region[y, x] for x, y in prompt["points"])
        assert prompt["negative_points"]
        for x, y in prompt["negative_points"]:
            assert seg_map[y, x] != own and probs[y, x].max() >= 0.6
        assert (component | ~region).all() and (seg_map[component] == own).all()
        assert prompt["region_size"] == region.sum() >= 5
        assert ndimage.label(region, np.ones((3, 3)))[1] == 1
        assert prompt["confidence"] == pytest.approx(probs[region, own].mean())
        covered += region
    confident = (probs.max(axis=-1) >= 0.6) & (seg_map != 0)
    assert covered.max() == 1 and not covered[~confident].any()
    left = ndimage.label(confident & (covered == 0), np.ones((3, 3)))[0]
    assert np.bincount(left.ravel())[1:].max(initial=0) < 5 * 4  # only regions under the least size


def without_class(prompt: Prompt) -> tuple:
    keys = ("class_name", "points", "box", "region_size", "negative_points")
    return tuple(str(prompt[key]) for key in keys)


@pytest.mark.parametrize("order", [[2, 0, 3, 1], [3, 2, 1, 0]])
def test_permuted_classes_permute_the_prompts(order: Sequence[int]) -> None:
    seg_map, probs = random_map(7)
    options = {"min_confidence": 0.6, "min_region_size": 5, "negative_points": 3}
    plain = extract_prompt_points_from_upsampled(seg_map, probs, NAMES, strategy="multi", **options)
    names = [NAMES[i] for i in order]
    permuted = extract_prompt_points_from_upsampled(
        np.argsort(order)[seg_map], probs[..., order], names, strategy="multi", **options
    )
    assert [p["class_idx"] for p in permuted] == sorted(p["class_idx"] for p in permuted)
    assert all(p["class_name"] == names[p["class_idx"]] for p in permuted)
    assert sorted(map(without_class, permuted)) == sorted(map(without_class, plain))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strategy": "middle"}, "'middle'; valid ones: pole, centroid, peak, multi"),
        ({"min_confidence": 70}, "min_confidence must be within 0..1, got 70"),
        ({"min_confidence": [0.5, 0.5, -1, 0.5]}, "min_confidence must be within 0..1"),
        ({"min_confidence": [0.5, 0.5]}, "one number, or one for each of the 4 classes, got shape"),
        ({"min_region_size": -1}, "min_region_size"),
        ({"points_per_region": 0}, "points_per_region"),
        ({"negative_points": -2}, "negative_points"),
        ({"background_idx": 4}, r"background_idx must be None or one of 0\.\.3, got 4"),
        ({"vocabulary": None}, "non-empty list of class names, got None"),
        ({"vocabulary": []}, r"non-empty list of class names, got \[\]"),
        ({"vocabulary": "cat"}, "non-empty list of class names, got 'cat'"),
        ({"vocabulary": ["a", "b"]}, r"shape \(8, 12, 2\).*got float32 of shape \(8, 12, 4\)"),
        ({"probs": np.zeros((4, 8, 12), np.float32)}, r"\(8, 12, 4\).*got .*\(4, 8, 12\)"),
        ({"probs": np.zeros((12, 8, 4), np.float32)}, r"\(8, 12, 4\).*got .*\(12, 8, 4\)"),
        ({"probs": np.full((8, 12, 4), 9.5)}, "from 9.5 to 9.5; take the softmax"),
        ({"probs": np.full((8, 12, 4), np.nan)}, "probabilities in 0..1, got values from nan"),
        ({"seg_map": np.zeros((8, 12))}, r"integers, got float64 of shape \(8, 12\)"),
        ({"seg_map": NEIGHBOURS[None]}, r"\(H, W\) integers, got int64 of shape \(1, 8, 12\)"),
        ({"seg_map": NEIGHBOURS * 2}, "got values from 0 to 6"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, Any], message: str) -> None:
    arguments = {"seg_map": NEIGHBOURS, "probs": probs_of(NEIGHBOURS), "vocabulary": NAMES}
    with pytest.raises(ValueError, match=message):
        extract_prompt_points_from_upsampled(**(arguments | change))
