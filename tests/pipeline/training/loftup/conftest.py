"""A backbone that costs nothing, and images of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.backbones.base import Backbone
from models.loftup.network import LoftUp
from pipeline.training.loftup.samples import Sample
from pipeline.training.loftup.targets import Example

H, W, CELL, DIM = 32, 48, 16, 8  # 2×3 cells


@pytest.fixture
def loftup() -> LoftUp:
    torch.manual_seed(0)
    return LoftUp(DIM).eval()


@pytest.fixture
def backbone() -> Backbone:
    """Mean colours of the cells, spread over 8 channels."""
    torch.manual_seed(1)
    spread = nn.Conv2d(3, DIM, 1)

    def encode(images: Tensor) -> Tensor:
        return spread(F.avg_pool2d(images, CELL))

    return Backbone("colours", DIM, CELL, (0.5,) * 3, (0.25,) * 3, spread, encode)


@pytest.fixture
def masks() -> np.ndarray:
    """Sky (0) over grass (1); a thing (2) on the right half of the first cell; a hole (-1)."""
    masks = np.zeros((H, W), np.int64)
    masks[16:] = 1
    masks[:16, 8:16] = 2
    masks[24:, 40:] = -1
    return masks


@pytest.fixture
def sample() -> Sample:
    """A square image of 64 pixels: four coloured squares, each a mask."""
    rng = np.random.default_rng(0)
    masks = np.arange(4).reshape(2, 2).repeat(32, 0).repeat(32, 1)
    image = rng.integers(0, 256, (4, 3))[masks] * 0.8 + rng.integers(0, 50, (64, 64, 3))
    return Sample(image.astype(np.uint8), masks)


@pytest.fixture
def example(masks, loftup) -> Example:
    """Random features of 2×3 cells, and mask features that need not be theirs."""
    torch.manual_seed(2)
    return Example(
        image=torch.randint(0, 255, (3, H, W), dtype=torch.uint8),
        features=torch.randn(DIM, 2, 3),
        masks=torch.from_numpy(masks),
        normed=torch.randn(3, DIM),
        joint=F.normalize(torch.randn(3, DIM), dim=1),
    )
