"""What the tests of weights share."""

import pytest
import torch
from torch import Tensor

from models.loftup.network import LoftUp


def random_loftup(dim: int = 16) -> dict[str, Tensor]:
    """A dict in the format of the published files."""
    torch.manual_seed(dim)
    return LoftUp(dim).state_dict()


def one_line(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message
