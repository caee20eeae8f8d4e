"""Images made strip by strip, from top to bottom, so that memory does not grow with them."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def assemble(strips: Iterable[Tensor], height: int) -> Tensor:
    """Strips (B, C, rows, W), top to bottom, as one (B, C, H, W); holds one strip beside it."""
    output, top = None, 0
    for strip in strips:
        if output is None:
            if strip.shape[2] == height:
                return strip
            output = strip.new_empty(*strip.shape[:2], height, strip.shape[3])
        output[:, :, top : top + strip.shape[2]] = strip
        top += strip.shape[2]
    assert output is not None and top == height, (top, height)
    return output


def resized_rows(values: Tensor, size: tuple[int, int], top: int, bottom: int) -> Tensor:
    """Rows top..bottom-1 of `F.interpolate(values, size, mode="bilinear")`, without the others.

    Args:
        values: (B, V, h, w).
        size: (H, W) of the whole result.
        top, bottom: 0 ≤ top < bottom ≤ H.

    Returns:
        (B, V, bottom - top, W).
    """
    last = values.shape[2] - 1
    position = (torch.arange(top, bottom, device=values.device) + 0.5) * (last + 1) / size[0]
    position = (position - 0.5).clamp(0, last)  # half-pixel centres, edges repeated
    upper = position.long()
    lower = (upper + 1).clamp_max(last)
    weight = (position - upper).to(values.dtype)[:, None]
    first = int(upper[0])
    used = values[:, :, first : int(lower[-1]) + 1]
    used = F.interpolate(used, (used.shape[2], size[1]), mode="bilinear")
    return torch.lerp(used[:, :, upper - first], used[:, :, lower - first], weight)


def learns(module: nn.Module, x: Tensor) -> bool:
    """Whether gradients are needed, so that nothing may be overwritten."""
    needed = x.requires_grad or any(p.requires_grad for p in module.parameters())
    return needed and torch.is_grad_enabled()


def measured_norm(norm: nn.GroupNorm, chunks: Iterable[Tensor]) -> Callable[[Tensor], Tensor]:
    """The norm as an affine function of any rows, of all chunks (B, d, rows, W) together."""
    moments, counts = [], []
    for chunk in chunks:
        grouped = chunk.float().unflatten(1, (norm.num_groups, -1)).flatten(2)
        moments.append(torch.stack(torch.var_mean(grouped, dim=2, correction=0)))
        counts.append(grouped.shape[2])
    variances, means = torch.stack(moments, dim=1)  # (chunks, B, groups) each
    weights = means.new_tensor(counts)[:, None, None] / sum(counts)
    mean = (weights * means).sum(0)
    variance = (weights * (variances + (means - mean).square())).sum(0)
    each = norm.num_channels // norm.num_groups
    mean, deviation = (
        value.repeat_interleave(each, dim=1) for value in (mean, (variance + norm.eps).sqrt())
    )
    scale = norm.weight / deviation
    shift = norm.bias - mean * scale
    scale, shift = scale[..., None, None], shift[..., None, None]  # (B, d, 1, 1)
    return lambda x: torch.addcmul(shift, x, scale)
