"""Region maps: painted masks, clusters of features, the correction of labels by them."""

import numpy as np
import torch

from models.regions import cluster_features, correct_by_regions, paint_masks, resize_regions

A, B, C = -1, 0, 1  # short, for pictures


def test_the_larger_mask_covers_the_smaller():
    large, small, far = np.zeros((3, 3, 5), bool)
    large[:2, :3] = small[0, 0] = small[0, 3] = far[2, 3:] = True
    far[1, 4] = True
    found = paint_masks([large, small, far], (3, 5))
    assert found.tolist() == [[2, 2, 2, 0, -1], [2, 2, 2, -1, 1], [-1, -1, -1, 1, 1]]
    assert (paint_masks([], (2, 3)) == -1).all()


def test_clusters_are_connected_parts_of_alike_features():
    """Two kinds of cells; the second lies in two places, and one cell is like nothing."""
    kinds = torch.tensor([[0, 0, 1, 1], [0, 0, 0, 0], [1, 1, 0, 2]])
    vectors = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0.4, 0.4, 1]])
    features = vectors[kinds].permute(2, 0, 1) * torch.rand(3, 4).add(1)  # of any length
    found = cluster_features(features, 0.9)
    parts = [found == found[0, 0], found == found[0, 2], found == found[2, 0], found == found[2, 3]]
    expected = [kinds == 0, (kinds == 1) & (torch.arange(3) < 1)[:, None],
                (kinds == 1) & (torch.arange(3) > 1)[:, None], kinds == 2]  # fmt: skip
    for part, wanted in zip(parts, expected, strict=True):
        assert (part == wanted.numpy()).all()
    assert set(np.unique(found)) == {0, 1, 2, 3}


def test_cells_unlike_their_cluster_are_in_no_region(monkeypatch):
    """One cluster only: the cell at right angles to its mean is left out."""
    monkeypatch.setattr("models.regions._MOST_CLUSTERS", 1)
    features = torch.tensor([[[1.0, 1, 1, 1, 0]], [[0, 0, 0, 0, 1.0]]])
    assert cluster_features(features, 0.9).tolist() == [[0, 0, 0, 0, -1]]


def test_every_region_takes_its_most_frequent_label():
    regions = np.array([[0, 0, 0, 1, 1], [0, 0, 2, 2, -1]], np.int32)
    labels = np.array([[3, 3, 1, 4, 0], [3, 1, 2, 5, 7]])
    # Of equally frequent ones the smallest: 0 of region 1, 2 of region 2.
    expected = [[3, 3, 3, 0, 0], [3, 3, 2, 2, 7]]
    found = correct_by_regions(labels, regions)
    assert found.tolist() == expected and found.dtype == labels.dtype
    assert labels[0, 2] == 1, "the labels given stay"
    assert (correct_by_regions(labels, np.full((2, 5), -1)) == labels).all()


def test_region_maps_are_resized_to_the_nearest():
    regions = torch.tensor([[0, 1, 70000], [-1, 1, 2]], dtype=torch.int32)
    found = resize_regions(regions, (4, 6))
    assert found.dtype == torch.int32
    assert found.tolist() == regions.repeat_interleave(2, 0).repeat_interleave(2, 1).tolist()
    batch = resize_regions(torch.stack([regions, regions + 1]), (1, 3))
    assert batch.tolist() == [[[0, 1, 70000]], [[1, 2, 70001]]]
