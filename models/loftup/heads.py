"""Last layers of LoftUp that keep its output near the features it is given; this project's own.

The published last layer projects to any vector, so its output can leave the space of the features,
where nothing that knows them (a text vector, a probe) can tell it. `Residual` adds to bilinear
upsampling what it learns, nothing at first. `Mix` gives every pixel a weighted mean of the patches:
it cannot leave their convex hull, nor say what no patch says.

Shapes: B windows, C feature channels, h w low-resolution grid, T = h·w, H W pixels of the image,
h' w' pixels of a window, N = h'·w', D = C + 20 working width, V channels of values.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .guide import Window

QUERY = 64  # width of the mix's queries and keys
SHARPNESS = 2.0  # of the mix before it learns: a Gaussian of half a patch

Size = tuple[int, int]


class Residual(nn.Module):
    """Bilinear upsampling, plus a projection that starts at zero."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, dim)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, x: Tensor, features: Tensor, size: Size, windows: Sequence[Window]) -> Tensor:
        """Queries (B, N, D) of windows, features (B, C, h, w) of each: (B, C, h', w').

        `size` is (H, W), of the image that the windows are in.
        """
        smooth = []
        for grid, window in zip(features, windows, strict=True):
            rows, columns = _spans(window)
            down = _bilinear(grid.shape[1], size[0])[rows].to(grid)
            across = _bilinear(grid.shape[2], size[1])[columns].to(grid)
            smooth.append(down @ grid @ across.T)
        learnt = self.project(x).transpose(1, 2).unflatten(2, smooth[0].shape[1:])
        return torch.stack(smooth) + learnt


class Mix(nn.Module):
    """A mean of the patches, by what pixel and patch say and by how far they are apart."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(width, QUERY), nn.Linear(dim, QUERY)
        self.sharpness = nn.Parameter(torch.tensor(SHARPNESS).log())
        nn.init.zeros_(self.query.weight)  # distance alone at first
        nn.init.zeros_(self.query.bias)

    def forward(self, x: Tensor, features: Tensor, size: Size, windows: Sequence[Window]) -> Tensor:
        """As `Residual`."""
        return self.mixed(x, features, features, size, windows)

    def mixed(
        self, x: Tensor, features: Tensor, values: Tensor, size: Size, windows: Sequence[Window]
    ) -> Tensor:
        """Any values (B, V, h, w) mixed as the features are: (B, V, h', w')."""
        keys = self.key(features.flatten(2).transpose(1, 2))  # (B, T, QUERY)
        logits = self.query(x) @ keys.transpose(1, 2) * QUERY**-0.5  # (B, N, T)
        grid, sharpness = features.shape[2:], self.sharpness.exp()
        near = []
        for window in windows:
            down, across = (
                _distances(cells, pixels)[span].to(logits)
                for cells, pixels, span in zip(grid, size, _spans(window), strict=True)
            )
            apart = down[:, None, :, None] + across[None, :, None, :]  # (h', w', h, w)
            near.append(apart.flatten(2).flatten(0, 1))
        weights = (logits - sharpness * torch.stack(near)).softmax(dim=2)
        mixed = weights @ values.flatten(2).transpose(1, 2)  # (B, N, V)
        shape = windows[0].height, windows[0].width
        return mixed.transpose(1, 2).unflatten(2, shape)


HEADS = {"residual": Residual, "mix": Mix}  # beside the published "projection"


def head_of(state: dict[str, Tensor]) -> str:
    """Which last layer a state dict is of."""
    if "upsampler.head.sharpness" in state:
        return "mix"
    return "residual" if "upsampler.head.project.weight" in state else "projection"


def _spans(window: Window) -> tuple[slice, slice]:
    rows = slice(window.top, window.top + window.height)
    return rows, slice(window.left, window.left + window.width)


@functools.cache
def _bilinear(cells: int, pixels: int) -> Tensor:
    """(pixels, cells) matrix that upsamples one axis."""
    unit = torch.eye(cells)[None, None]
    return F.interpolate(unit, (pixels, cells), mode="bilinear", align_corners=False)[0, 0]


@functools.cache
def _distances(cells: int, pixels: int) -> Tensor:
    """(pixels, cells) squared distances of centres along one axis, in cells."""
    places = (torch.arange(pixels) + 0.5) * (cells / pixels) - 0.5
    return (places[:, None] - torch.arange(cells)).square()
