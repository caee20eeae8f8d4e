"""Regions of an image, from SAM 2's automatic masks or from a proxy's features.

A region map holds ids from 0, and −1 where there is no region.

Shapes: H W pixels, h w cells, C' channels of a proxy, K labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .windows import pad_to_multiple, resize_for_protocol

if TYPE_CHECKING:
    from .dense_config import DenseConfig
    from .networks import Networks

NO_REGION = -1
_MOST_CLUSTERS, _ROUNDS = 64, 5


@torch.no_grad()
def find_regions(
    networks: Networks, config: DenseConfig, image: np.ndarray, dtype: torch.dtype
) -> np.ndarray:
    """The region map (H, W) int32 of an image (H, W, 3) uint8 RGB, as the settings say.

    Args:
        networks: SAM 2, or the proxy.
        config: resolved settings.
        image: the whole image.
        dtype: of SAM 2's products.
    """
    if config.regions == "sam2":
        preset = networks.preset.sam
        records = networks.sam(dtype).automatic(image, preset.regions)
        return paint_masks([record["segmentation"] for record in records], image.shape[:2])
    protocol: Any = config.protocol
    resized = resize_for_protocol(image, protocol.short_side, protocol.long_side)
    colours = torch.from_numpy(resized).to(networks.device).permute(2, 0, 1)[None].float() / 255
    patch = networks.backbone().patch
    padded = pad_to_multiple(colours, (patch, patch))
    cells = networks.proxy(config).features(padded)[0]
    found = torch.from_numpy(cluster_features(cells, config.region_similarity))
    found = resize_regions(found, padded.shape[2:])[: resized.shape[0], : resized.shape[1]]
    return resize_regions(found, image.shape[:2]).int().numpy()


def paint_masks(masks: Sequence[np.ndarray], size: Sequence[int]) -> np.ndarray:
    """The region map (H, W) int32 of masks (H, W) bool; where they overlap, the larger one's."""
    found = np.full(tuple(size), NO_REGION, np.int32)
    for number, mask in enumerate(sorted(masks, key=np.count_nonzero)):
        found[mask] = number
    return found


def cluster_features(features: Tensor, least: float) -> np.ndarray:
    """Connected cells (4 neighbours) that are like the mean of their cluster: (h, w) int32.

    Clusters begin at cells unlike all before, until none is left, and are then refined as by
    spherical k-means. There is no chance in it.

    Args:
        features: (C', h, w).
        least: cosine with its cluster's mean below which a cell is in no region.
    """
    size = (features.shape[1], features.shape[2])
    cells = F.normalize(features.float().flatten(1), dim=0).T  # (n, C')
    centres = [cells[int((cells @ cells.mean(0)).argmax())]]
    nearest = cells @ centres[0]
    while nearest.min() < least and len(centres) < _MOST_CLUSTERS:
        centres.append(cells[int(nearest.argmin())])
        nearest = torch.maximum(nearest, cells @ centres[-1])
    means = torch.stack(centres)
    for _ in range(_ROUNDS):
        members = F.one_hot((cells @ means.T).argmax(1), len(means)).to(cells)
        means = F.normalize(members.T @ cells, dim=1)
    cosine, cluster = (cells @ means.T).max(1)
    cluster = cluster.masked_fill(cosine < least, NO_REGION).view(size).cpu().numpy()
    return _connected(cluster)


def _connected(clusters: np.ndarray) -> np.ndarray:
    """A region for every connected part of each cluster."""
    found, start = np.full(clusters.shape, NO_REGION, np.int32), 0
    for number in np.unique(clusters[clusters != NO_REGION]):
        mask = (clusters == number).astype(np.uint8)
        count, parts = cv2.connectedComponents(mask, connectivity=4)
        found[mask > 0] = parts[mask > 0] - 1 + start
        start += count - 1
    return found


def resize_regions(regions: Tensor, size: Sequence[int]) -> Tensor:
    """A region map (h, w), or several (B, h, w), at another size by nearest neighbour."""
    whole = regions.view(-1, 1, *regions.shape[-2:]).float()  # ids are exact up to 2^24
    found = F.interpolate(whole, tuple(size), mode="nearest").to(regions.dtype)
    return found.view(*regions.shape[:-2], *size)


def correct_by_regions(labels: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """Every region takes its most frequent label, of equal ones the smallest (CorrCLIP).

    Args:
        labels: (H, W) integers from 0.
        regions: (H, W); pixels in no region keep their label.

    Returns:
        (H, W), a new array of the dtype of `labels`.
    """
    inside = regions != NO_REGION
    if not inside.any():
        return labels.copy()
    count = int(labels.max()) + 1
    votes = np.bincount(regions[inside].astype(np.int64) * count + labels[inside])
    votes = np.pad(votes, (0, -len(votes) % count)).reshape(-1, count)
    found = labels.copy()
    found[inside] = votes.argmax(1)[regions[inside]]
    return found
