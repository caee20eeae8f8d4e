"""Masks that may overlap, as a map of regions that do not, and what drawing to them does.

A region is what the same masks cover. `members` says which regions a mask is made of; None where
every region is a mask of its own.

Shapes: H×W pixels, R regions, M masks, C channels. A map holds 0…R-1, -1 where no mask is.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

NO_MASK = -1


def regions_of(masks: Iterable[np.ndarray], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The regions of overlapping masks, each (H, W) bool with a pixel at least.

    Returns:
        (H, W) int64 map of regions, and `members`, (M, R) bool in the order of the masks.
    """
    # Every mask splits the regions it cuts: the part inside gets a new number.
    regions, covers = np.zeros(size, np.int64), [()]
    for number, mask in enumerate(masks):
        inside = regions[mask]
        cut = np.bincount(inside, minlength=len(covers)) > 0  # sorting millions of pixels is slow
        regions[mask] = (len(covers) - 1 + np.cumsum(cut))[inside]
        covers += [(*covers[i], number) for i in np.flatnonzero(cut)]
    present = np.unique(regions[regions > 0])
    members = np.zeros((1 + max((n for c in covers for n in c), default=-1), len(present)), bool)
    for column, region in enumerate(present):
        members[list(covers[region]), column] = True
    return compact(regions, 0), members


def compact(labels: np.ndarray, none: int | None = None) -> np.ndarray:
    """A map of any labels: they are numbered 0…R-1 in order, `none` becomes -1."""
    values, masks = np.unique(labels, return_inverse=True)
    masks = masks.reshape(labels.shape).astype(np.int64)
    if none is not None and none in values:
        at = int(np.searchsorted(values, none))
        masks = np.where(masks == at, NO_MASK, masks - (masks > at))
    return masks


def shown(masks: np.ndarray, members: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """A part of a map, or a smaller one: its regions numbered anew, masks without pixels gone."""
    if members is not None:
        values = np.unique(masks)
        members = members[:, values[values != NO_MASK]]
        members = members[members.any(1)]
    return compact(masks, NO_MASK), members


def drawing(
    means: Tensor, masks: Tensor, members: Tensor | None, alpha: float
) -> tuple[Tensor, Tensor]:
    """What drawing features to their masks makes of every region, Eq. 1 of arXiv:2504.14032.

    Mask by mask all pixels of a mask, those that it shares with others too, become α · their mean
    + (1 − α) · themselves. A pixel's features thus keep a share of themselves, and get the same
    vector as all of its region: `pixels · kept + added`. As in the published training code a mask
    sees what those before it have made; for nested masks the order changes nothing.

    Args:
        means: (R, C) mean features of the regions.
        masks: (H, W) map that counts their pixels.
        members: (M, R) bool, or None.
        alpha: α.

    Returns:
        added (R, C) and kept (R,).
    """
    if members is None:
        return alpha * means, means.new_full((len(means),), 1 - alpha)
    sizes = torch.bincount(masks[masks >= 0], minlength=len(means)).to(means)
    now, kept = means.clone(), torch.ones_like(sizes)
    for inside in members:
        mean = sizes[inside] @ now[inside] / sizes[inside].sum()
        now[inside] = torch.lerp(now[inside], mean, alpha)
        kept[inside] *= 1 - alpha
    return now - kept[:, None] * means, kept


def draw_to_masks(pixels: Tensor, added: Tensor, kept: Tensor, masks: Tensor) -> Tensor:
    """`pixels · kept + added` by region: (C, H, W); pixels without a mask keep what they have.

    `added` and `kept` are those of `drawing`, `masks` the (H, W) map.
    """
    if not len(added):
        return pixels
    at = masks.clamp_min(0)
    return torch.where(masks >= 0, added[at].movedim(2, 0) + kept[at] * pixels, pixels)


def refine(pixels: Tensor, masks: Tensor, members: Tensor | None, alpha: float) -> Tensor:
    """Draw full-resolution features (C, H, W) to the means over their own masks."""
    count, inside = int(masks.max()) + 1, masks >= 0
    owner, values = masks[inside], pixels.movedim(0, 2)[inside]  # (N,), (N, C)
    sums = values.new_zeros(count, len(pixels)).index_add_(0, owner, values)
    means = sums / torch.bincount(owner, minlength=count).clamp_min(1)[:, None]
    return draw_to_masks(pixels, *drawing(means, masks, members, alpha), masks)
