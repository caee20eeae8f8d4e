"""Crops against whole masks, and coverage of a coarse grid by hand."""

import numpy as np
import pytest

from pipeline.regions import Region

from .test_masks import mask_of

SIZE = (6, 9)


def test_from_mask_keeps_the_tight_box_and_paste_restores_it() -> None:
    mask = np.zeros(SIZE, bool)
    mask[2:4, 3:8] = mask_of("#..##", ".###.")
    region = Region.from_mask(mask)
    assert (region.top, region.left, region.box, region.area) == (2, 3, (3, 2, 8, 4), 6)
    np.testing.assert_array_equal(region.paste(SIZE), mask)
    assert not np.shares_memory(region.mask, mask)
    assert np.shares_memory(Region.from_mask(mask, copy=False).mask, mask)


def test_empty_mask() -> None:
    region = Region.from_mask(np.zeros(SIZE, bool))
    assert (region.box, region.area) == ((0, 0, 0, 0), 0)
    assert not region.paste(SIZE).any() and not region.coverage(SIZE, 3).any()


def test_overlap_counts_shared_pixels() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        a, b = np.zeros((2, *SIZE), bool)
        for mask in (a, b):
            top, left = rng.integers(0, 5), rng.integers(0, 8)
            crop = mask[top : top + rng.integers(1, 6), left : left + rng.integers(1, 6)]
            crop[:] = rng.random(crop.shape) < 0.6
        shared = Region.from_mask(a).overlap(Region.from_mask(b))
        assert shared == np.count_nonzero(a & b)


def test_coverage_scales_each_axis_by_itself() -> None:
    # 4 × 6 pixels on a 2 × 2 grid: a cell is 2 rows × 3 columns, 6 pixels.
    region = Region(1, 2, mask_of("###", "##."))
    expected = np.array([[1, 2], [1, 1]]) / 6
    np.testing.assert_allclose(region.coverage((4, 6), 2), expected, atol=1e-7)


def test_coverage_of_a_pixel_smaller_or_larger_than_a_cell() -> None:
    # 3 × 2 pixels on a 2 × 2 grid: the middle row lies half in each row of cells.
    np.testing.assert_allclose(
        Region(1, 0, mask_of("#")).coverage((3, 2), 2), [[1 / 3, 0], [1 / 3, 0]], atol=1e-7
    )
    # 2 × 1 pixels on a 4 × 4 grid: one pixel fills two rows of cells.
    expected = np.repeat([[0], [0], [1], [1]], 4, axis=1)
    np.testing.assert_allclose(Region(1, 0, mask_of("#")).coverage((2, 1), 4), expected, atol=1e-7)


@pytest.mark.parametrize(("size", "side"), [((12, 20), 4), ((13, 7), 5), ((5, 6), 16)])
def test_coverage_equals_means_of_a_finely_repeated_mask(size: tuple[int, int], side: int) -> None:
    mask = np.random.default_rng(1).random(size) < 0.4
    mask[:2], mask[:, -1] = False, False
    fine = mask.repeat(side, axis=0).repeat(side, axis=1)  # (H·L, W·L): cells end between pixels
    expected = fine.reshape(side, size[0], side, size[1]).mean(axis=(1, 3))
    np.testing.assert_allclose(Region.from_mask(mask).coverage(size, side), expected, atol=1e-6)


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ValueError, match=r"leaves the image of size \(9, 6\)"):
        Region(0, 0, np.ones((2, 7), bool)).paste((9, 6))
    with pytest.raises(ValueError, match="float32"):
        Region.from_mask(np.zeros((2, 2), np.float32))
