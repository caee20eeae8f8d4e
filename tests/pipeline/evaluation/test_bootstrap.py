"""Paired bootstrap: against a plain loop, and where the answer is known."""

import warnings

import numpy as np
import pytest

from pipeline.evaluation import bootstrap
from pipeline.evaluation.bootstrap import Interval, paired_bootstrap


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def counts(seed, images=30, labels=5, share=0.5):
    """(N, 2, C) counts; many labels are absent from an image, the last from all."""
    rng = np.random.default_rng(seed)
    union = rng.integers(1, 1000, (images, labels)) * (rng.random((images, labels)) < 0.4)
    union[:, -1] = 0
    union[:, 0] += 10
    return np.stack([rng.binomial(union, share), union], axis=1)


def plain_mean_iou(values):
    ious = [100 * i / u for i, u in zip(*values.sum(axis=0).tolist(), strict=True) if u]
    return sum(ious) / len(ious)


def test_against_a_plain_loop_over_resamples():
    arms = {"a": counts(1), "b": counts(2, share=0.6), "c": counts(3, share=0.7)}
    result = paired_bootstrap(arms, resamples=150, seed=4)
    rng = np.random.default_rng(4)
    draws = [np.repeat(np.arange(30), rng.multinomial(30, np.full(30, 1 / 30))) for _ in range(150)]
    samples = {a: np.array([plain_mean_iou(c[d]) for d in draws]) for a, c in arms.items()}
    for arm, values in arms.items():
        low, high = np.percentile(samples[arm], [2.5, 97.5])
        assert result.arms[arm] == pytest.approx((plain_mean_iou(values), low, high))
    assert list(result.differences) == ["b - a", "c - a", "c - b"]
    for key, (value, low, high) in result.differences.items():
        later, earlier = key.split(" - ")
        assert value == pytest.approx(plain_mean_iou(arms[later]) - plain_mean_iou(arms[earlier]))
        expected = np.percentile(samples[later] - samples[earlier], [2.5, 97.5])
        assert (low, high) == pytest.approx(tuple(expected))


def test_the_draws_are_those_of_images_picked_one_by_one():
    arm = counts(1)
    picks = np.random.default_rng(0).integers(30, size=(4000, 30))
    expected = np.percentile([plain_mean_iou(arm[p]) for p in picks], [2.5, 97.5])
    _, low, high = paired_bootstrap({"a": arm}, resamples=4000).arms["a"]
    assert (low, high) == pytest.approx(tuple(expected), abs=0.05)
    assert high - low > 1


def test_identical_arms_differ_by_exactly_nothing():
    result = paired_bootstrap({"a": counts(1), "b": counts(1).copy()}, resamples=200)
    assert result.differences == {"b - a": Interval(0.0, 0.0, 0.0)}
    assert result.arms["a"] == result.arms["b"]
    assert result.arms["a"].low < result.arms["a"].value < result.arms["a"].high


def test_a_constant_gain_is_found_however_much_images_differ():
    rng = np.random.default_rng(5)
    union = np.full((40, 3), 1000)
    hits = rng.integers(100, 800, (40, 3))
    arms = {"worse": np.stack([hits, union], 1), "better": np.stack([hits + 70, union], 1)}
    result = paired_bootstrap(arms, resamples=300)
    assert result.differences["better - worse"] == pytest.approx((7, 7, 7))
    worse = result.arms["worse"]
    assert worse.high - worse.low > 5  # alone, the arms are far less sure


def test_one_image_leaves_nothing_to_draw():
    one = np.array([[[30, 0, 10], [60, 0, 10]]])
    better = np.array([[[45, 0, 10], [60, 0, 10]]])
    result = paired_bootstrap({"a": one, "b": better}, resamples=10)
    assert result.arms["a"] == (75, 75, 75)
    assert result.differences["b - a"] == (12.5, 12.5, 12.5)


def test_seeds_repeat_and_other_arms_change_nothing():
    arms = {"a": counts(1), "b": counts(2), "c": counts(3)}
    first = paired_bootstrap(arms, resamples=100, seed=1)
    assert paired_bootstrap(arms, resamples=100, seed=1) == first
    assert paired_bootstrap(arms, resamples=100, seed=2) != first
    fewer = paired_bootstrap({"c": arms["c"], "a": arms["a"]}, resamples=100, seed=1)
    assert fewer.arms == {"c": first.arms["c"], "a": first.arms["a"]}
    turned, before = fewer.differences["a - c"], first.differences["c - a"]
    assert turned == pytest.approx((-before.value, -before.high, -before.low))


def test_the_size_of_chunks_changes_nothing(monkeypatch):
    arms = {"a": counts(1, images=7), "b": counts(2, images=7)}
    expected = paired_bootstrap(arms, resamples=101)
    monkeypatch.setattr(bootstrap, "_CHUNK", 9)
    assert paired_bootstrap(arms, resamples=101) == expected


def test_images_that_are_all_void_count_as_nothing():
    some = counts(1, images=3)
    some[:2] = 0
    result = paired_bootstrap({"a": some}, resamples=100)
    assert result.arms["a"] == pytest.approx((plain_mean_iou(some),) * 3)
    assert np.isnan(paired_bootstrap({"a": some[:2]}, resamples=5).arms["a"]).all()


def test_errors_name_the_arm():
    with pytest.raises(ValueError, match=r"'b' have shape \(2, 5\)"):
        paired_bootstrap({"a": counts(1), "b": counts(1)[0]})
    with pytest.raises(ValueError, match="same images and labels"):
        paired_bootstrap({"a": counts(1), "b": counts(1)[1:]})
    with pytest.raises(ValueError, match="N ≥ 1"):
        paired_bootstrap({"a": counts(1)[:0]})
    with pytest.raises(ValueError, match="0 resamples"):
        paired_bootstrap({"a": counts(1)}, resamples=0)
    assert paired_bootstrap({}) == ({}, {})


@pytest.mark.parametrize(("images", "known"), [(1, True), (2, True), (6, False)])
def test_an_interval_holds_its_value_or_there_is_none(images, known):
    # Each class is in one image, with a wrong pixel in every other: resamples that miss its image
    # have the wrong pixels alone, so all other resamples are worse than the value.
    own = np.eye(images, dtype=int)
    arm = np.stack([90 * own, 100 * own + (1 - own)], axis=1)
    worse = np.stack([45 * own, arm[:, 1]], axis=1)
    result = paired_bootstrap({"a": arm, "b": worse}, resamples=400)
    for value, low, high in (*result.arms.values(), *result.differences.values()):
        assert (low <= value <= high) if known else (np.isnan(low) and np.isnan(high))
        assert not np.isnan(value)
