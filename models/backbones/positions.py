"""Position embeddings of a ViT on another grid than the trained one.

Shapes: h×w patches, D channels.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

# Added to the wanted grid before dividing, so that rounding never yields one row too few. DINO,
# DINOv2 and the dense CLIPs were evaluated with it and it shifts the samples: part of the numbers.
_GRID_MARGIN = 0.1


def resize_positions(
    trained: Tensor, trained_grid: tuple[int, int], grid: tuple[int, int]
) -> Tensor:
    """Bicubic, without antialiasing, by the scale factors (h + 0.1) / trained h, and likewise w.

    Args:
        trained: (trained h · trained w, D).
        trained_grid, grid: (h, w) of the given and of the wanted ones.

    Returns:
        (h·w, D) in the dtype of `trained`; itself where the grids are equal.
    """
    if grid == trained_grid:
        return trained
    image = trained.T.reshape(1, -1, *trained_grid)  # (1, D, rows, columns)
    scale = tuple((wanted + _GRID_MARGIN) / n for wanted, n in zip(grid, trained_grid, strict=True))
    # The scale factors themselves (not the sizes) set the sampling positions.
    resized = F.interpolate(image.float(), scale_factor=scale, mode="bicubic").to(trained.dtype)
    assert resized.shape[2:] == torch.Size(grid)
    return resized[0].flatten(1).T
