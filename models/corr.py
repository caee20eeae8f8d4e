"""CorrCLIP: patches attend within regions, as alike as a second network finds them.

Zhang et al., ICCV 2025, arXiv:2411.10086, version 1. Each step can be switched off, see
`models.dense_methods.settings`.

Shapes: B images, h w CLIP's grid, h' w' the proxy's, n = h'·w', R regions, T = 1 + h·w tokens,
D width of CLIP's transformer, C joint width, C' channels of the proxy.
"""

from collections.abc import Callable

import torch
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor
from torch.nn import functional as F

from .clip_dense import head_values, last, queries_keys_values
from .dense_methods.settings import Given
from .proxy_attention import attend, finish_values, mean_similarity, to_patches, unit_cells
from .regions import NO_REGION, resize_regions

SHARPNESS = 4.0  # factor on the similarity
_SPATIAL_BLOCKS = {12: 5, 24: 12, 32: 28}  # blocks of CLIP -> N of them in the spatial branch


def corr(visual: VisionTransformer, states: list[Tensor], given: Given) -> Tensor:
    """The three branches together, in the joint space.

    Args:
        visual: CLIP's tower.
        states: (B, T, D) before each block, the last one's last.
        given: with `proxy` and `regions`.

    Returns:
        (B, C, h', w').
    """
    assert given.proxy is not None and given.regions is not None, "the method needs them"
    return torch.stack(
        [
            _one(visual, [state[i : i + 1] for state in states], given, cells, given.regions[i])
            for i, cells in enumerate(unit_cells(given.proxy))
        ]
    )


def _one(
    visual: VisionTransformer, states: list[Tensor], given: Given, cells: Tensor, regions: Tensor
) -> Tensor:
    settings, block = given.settings, last(visual)
    size = (regions.shape[0], regions.shape[1])
    merged = merge_regions(cells, regions.flatten(), settings.corr_merge)  # (n,)
    inputs, weights = [states[-1]], [1.0]
    if settings.corr_spatial:
        inputs.append(spatial_tokens(states))
        weights.append(settings.corr_spatial)
    values = [to_patches(head_values(block, tokens), given.grid)[0] for tokens in inputs]
    alike = cells if settings.corr_value else _clip_cells(visual, states[-1], given.grid, size)
    logits = corr_logits(alike, cells, merged if settings.corr_scope else None)
    semantic = None
    if settings.corr_semantic:
        semantic = _semantic(visual, states, merged.view(size), given.grid)
    found, start = [], 0
    for strip in attend(torch.cat(values), size, logits):
        branches = strip.chunk(len(values), dim=1)
        total = torch.zeros((), device=strip.device)
        for weight, branch in zip(weights, branches, strict=True):
            total = total + weight * visual.ln_post(finish_values(block, branch))
        if semantic is not None:
            total = total + settings.corr_semantic * semantic[start : start + len(strip)]
        start += len(strip)
        found.append(total if visual.proj is None else total @ visual.proj)
    return torch.cat(found).T.unflatten(1, size)


def merge_regions(cells: Tensor, regions: Tensor, near: float) -> Tensor:
    """Join regions that the proxy finds alike.

    Args:
        cells: (n, C') unit vectors.
        regions: (n,) int64, −1 where there is none.
        near: two are joined whose mean vectors' cosine is so near the highest; chains are one. The
            paper's DBSCAN with one sample is the same. 0 joins none.

    Returns:
        (n,) int64: 0, 1, … without gaps, −1 where there was none.
    """
    ids, index = regions.unique(return_inverse=True)
    offset = int(ids[0] == NO_REGION)
    index, count = index - offset, len(ids) - offset
    if near and len(ids) > 2:
        members = F.one_hot((index + 1).clamp_min(0), count + 1)[:, 1:].to(cells)
        means = F.normalize(members.T @ cells, dim=1)
        cosines = means @ means.T
        index = torch.cat([_components(cosines.max() - cosines <= near), index.new_tensor([-1])])[
            index
        ]
    return index


def _components(joined: Tensor) -> Tensor:
    """(R, R) bool -> (R,) the connected components' numbers, without gaps."""
    labels = torch.arange(len(joined), device=joined.device)
    while True:
        least = torch.where(joined, labels, len(labels)).amin(1).minimum(labels)
        if torch.equal(least, labels):
            return labels.unique(return_inverse=True)[1]
        labels = least


def corr_logits(alike: Tensor, cells: Tensor, regions: Tensor | None) -> Callable[[slice], Tensor]:
    """Rows of 4·S, −inf between cells that may not attend to each other.

    Two cells of one region may; where either has no region, those more alike than the mean.

    Args:
        alike: (n, ·) unit vectors, whose products are S.
        cells: (n, C') the proxy's unit vectors.
        regions: (n,), or None: all may.
    """

    def logits(rows: slice) -> Tensor:
        found = alike[rows] @ alike.T
        if regions is None:
            return found.mul_(SHARPNESS)
        own, similarity = regions[rows, None], found if alike is cells else cells[rows] @ cells.T
        loose = (own == NO_REGION) | (regions == NO_REGION)
        forbidden = torch.where(loose, similarity <= mean, own != regions)
        forbidden.diagonal(rows.start).fill_(False)
        return found.mul_(SHARPNESS).masked_fill_(forbidden, -torch.inf)

    mean = mean_similarity(cells)
    return logits


def spatial_tokens(states: list[Tensor]) -> Tensor:
    """The mean of earlier blocks' outputs, in which patches still look most like themselves."""
    layers = len(states)
    count = max(1, _SPATIAL_BLOCKS.get(layers, layers - 4))
    return torch.stack(states[max(0, layers - 1 - count) : layers - 1]).mean(0)


def _clip_cells(
    visual: VisionTransformer, tokens: Tensor, grid: tuple[int, int], size: tuple[int, ...]
) -> Tensor:
    """The last block's queries + keys on the proxy's grid, unit vectors (n, D)."""
    queries, keys, _ = queries_keys_values(last(visual), tokens)
    both = (queries + keys).transpose(1, 2).flatten(2)  # (1, T, D)
    return unit_cells(F.interpolate(to_patches(both, grid), size, mode="bilinear"))[0]


def _semantic(
    visual: VisionTransformer, states: list[Tensor], regions: Tensor, grid: tuple[int, int]
) -> Tensor:
    """Each region's own class token, given to its cells, after `ln_post`: (n, D).

    What is in no region is one more. Copies are seen by nobody, so the other tokens are those that
    the trunk has made already.
    """
    small = resize_regions(regions, grid).flatten() - NO_REGION
    count = int(regions.max()) + 1 - NO_REGION
    numbers = torch.arange(count, device=regions.device)[:, None]
    seen = F.pad(small == numbers, (1, 0), value=True)  # (R, T): the class token and its patches
    copies = states[0][:, :1].expand(-1, count, -1)  # (1, R, D)
    for block, tokens in zip(visual.transformer.resblocks, states, strict=True):
        copies = _attend_to(block, copies, tokens, seen)  # type: ignore[arg-type]  # a ModuleList
    shown = resize_regions(small.view(grid), tuple(regions.shape)).flatten()
    return visual.ln_post(copies[0])[shown]


def _attend_to(
    block: ResidualAttentionBlock, copies: Tensor, tokens: Tensor, seen: Tensor
) -> Tensor:
    queries, _, _ = queries_keys_values(block, copies)
    _, keys, values = queries_keys_values(block, tokens)
    mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=seen)
    attended = block.attn.out_proj(mixed.transpose(1, 2).flatten(2))
    copies = copies + block.ls_1(attended)
    return copies + block.ls_2(block.mlp(block.ln_2(copies)))
