"""3×3 convolutions with a quarter of the multiplications, in float32.

Winograd's minimal filtering F(4×4, 3×3) (Lavin & Gray, CVPR 2016, arXiv:1509.09308): 36 products
give 4×4 outputs, for which the definition takes 144. Exact but for rounding, which the choice of
interpolation points keeps near that of the direct sum.

Shapes: H W outputs, I input channels, O output channels, n = ⌈H/4⌉·⌈W/4⌉ blocks.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

_SIDE = 4  # outputs of a block, along one axis
_TAPS = _SIDE + 2  # inputs of a block
# The usual points 0, ±1, ±2 lose almost five times as much precision.
_POINTS = (0.0, 0.5**0.5, -(0.5**0.5), 2**0.5, -(2**0.5))


def transform_weight(weight: Tensor) -> Tensor:
    """A convolution's weight (O, I, 3, 3) as `winograd` takes it: (36, I, O)."""
    outputs, inputs = weight.shape[:2]
    taps = weight.permute(2, 3, 1, 0).reshape(9, -1)
    return (_MATRICES[1].to(weight) @ taps).view(_TAPS**2, inputs, outputs)


def winograd(x: Tensor, weight: Tensor) -> Tensor:
    """The 3×3 convolution of (H + 2, W + 2, I) without padding: (H, W, O) float32.

    Args:
        x: pixel by pixel, channels last.
        weight: (36, I, O) from `transform_weight`.
    """
    height, width, inputs = x.shape[0] - 2, x.shape[1] - 2, x.shape[2]
    rows, columns = -(-height // _SIDE), -(-width // _SIDE)
    if height % _SIDE or width % _SIDE:
        x = F.pad(x, (0, 0, 0, _SIDE * columns - width, 0, _SIDE * rows - height))
    blocks = x.unfold(0, _TAPS, _SIDE).unfold(1, _TAPS, _SIDE)  # (rows, columns, I, 6, 6)
    blocks = blocks.permute(3, 4, 0, 1, 2).reshape(_TAPS**2, -1)
    to_blocks, _, to_outputs = (m.to(x) for m in _MATRICES)
    blocks = (to_blocks @ blocks).view(_TAPS**2, rows * columns, inputs)
    blocks = torch.bmm(blocks, weight)  # (36, n, O)
    x = (to_outputs @ blocks.flatten(1)).view(_SIDE, _SIDE, rows, columns, -1)
    x = x.permute(2, 0, 3, 1, 4).reshape(_SIDE * rows, _SIDE * columns, -1)
    return x[:height, :width]


def _polynomial(roots: list[float]) -> Tensor:
    """Coefficients of ∏ (t − root), lowest first."""
    result = torch.ones(1, dtype=torch.float64)
    for root in roots:
        result = F.pad(result, (1, 0)) - root * F.pad(result, (0, 1))
    return result


def _matrices() -> tuple[Tensor, Tensor, Tensor]:
    """Cook–Toom's transforms of a block's inputs (36, 36), weights (36, 9), outputs (16, 36).

    A one-dimensional convolution is a product of polynomials: evaluate both at `_POINTS` and at
    infinity, multiply, interpolate. Two dimensions are its Kronecker product with itself.
    """
    inputs = torch.zeros(_TAPS, _TAPS, dtype=torch.float64)
    weights = torch.zeros(_TAPS, 3, dtype=torch.float64)
    outputs = torch.zeros(_SIDE, _TAPS, dtype=torch.float64)
    for i, point in enumerate(_POINTS):
        others = [other for other in _POINTS if other != point]
        powers = point ** torch.arange(_TAPS, dtype=torch.float64)
        inputs[i, : len(_POINTS)] = _polynomial(others)
        weights[i] = powers[:3] / math.prod(point - other for other in others)
        outputs[:, i] = powers[:_SIDE]
    inputs[-1] = _polynomial(list(_POINTS))
    weights[-1, -1] = outputs[-1, -1] = 1  # at infinity only the highest power counts
    return torch.kron(inputs, inputs), torch.kron(weights, weights), torch.kron(outputs, outputs)


_MATRICES = _matrices()
