"""PAMR: pixel-adaptive mask refinement (Araslanov & Roth, CVPR 2020, arXiv:2005.08104, eq. 5-7).

Class scores flow between neighbouring pixels of similar colour.

Shapes: K classes, h w the scores' own size, H W image pixels.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def pamr(image: Tensor, scores: Tensor, steps: int, dilations: Sequence[int]) -> Tensor:
    """Refine class scores along the edges of the image.

    Args:
        image: (1, 3, H, W), in any range: only differences over local deviation count.
        scores: (1, K, h, w), first resized to the image (bilinear, align_corners=True).
        steps: rounds of neighbour averaging; 0 only resizes.
        dilations: distances of the 8 neighbours, pixels.

    Returns:
        (1, K, H, W).
    """
    if image.ndim != 4 or scores.ndim != 4 or len(image) != len(scores):
        raise ValueError(
            "image and scores must have shapes (B, 3, H, W) and (B, K, h, w), got "
            f"{tuple(image.shape)} and {tuple(scores.shape)}"
        )
    if steps < 0 or not dilations or min(dilations) < 1:
        raise ValueError(
            f"steps must be >= 0 and dilations >= 1, got steps={steps}, dilations={dilations}"
        )
    size = (image.shape[2], image.shape[3])
    scores = F.interpolate(scores, size, mode="bilinear", align_corners=True)
    if not steps:
        return scores
    affinity = _affinity(image, dilations)
    for _ in range(steps):
        mixed = torch.zeros_like(scores)
        # Neighbour by neighbour: all copies at once would need 8·dilations times the memory.
        for index, neighbour in enumerate(_neighbours(scores, dilations)):
            mixed += affinity[:, index : index + 1] * neighbour
        scores = mixed
    return scores


def _affinity(image: Tensor, dilations: Sequence[int]) -> Tensor:
    """Weights (B, 8·dilations, H, W) of every neighbour, summing to 1."""
    deviation = 1e-8 + 0.1 * _local_deviation(image, dilations)
    distances = [
        ((image - neighbour).abs() / deviation).mean(dim=1)
        for neighbour in _neighbours(image, dilations)
    ]
    return torch.softmax(-torch.stack(distances, dim=1), dim=1)


def _local_deviation(image: Tensor, dilations: Sequence[int]) -> Tensor:
    """Deviation over the pixel and its 8 neighbours, pooled over all dilations; per channel."""
    count = 9 * len(dilations)
    zero = torch.zeros_like(image)
    mean = sum(_neighbours(image, dilations, centre=True), zero) / count
    squares = sum(((n - mean).square() for n in _neighbours(image, dilations, centre=True)), zero)
    return (squares / (count - 1)).sqrt()


def _neighbours(x: Tensor, dilations: Sequence[int], centre: bool = False) -> Iterator[Tensor]:
    """The shifted copies of x (B, C, H, W), replicated at the border; row by row per dilation."""
    height, width = x.shape[2:]
    for step in dilations:
        padded = F.pad(x, (step, step, step, step), mode="replicate")
        for row in range(3):
            for column in range(3):
                if (row, column) != (1, 1) or centre:
                    top, left = row * step, column * step
                    yield padded[:, :, top : top + height, left : left + width]
