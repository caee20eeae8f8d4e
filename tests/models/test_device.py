"""Precision: what is offered where, and that it reaches the products."""

import pytest
import torch

from models import device

CPU = torch.device("cpu")


def can(monkeypatch: pytest.MonkeyPatch, **capabilities: bool) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)


def test_bfloat16_needs_instructions_for_it(monkeypatch):
    can(monkeypatch, avx2=True, avx512_bf16=False)
    assert device.check_precision("float32", CPU) is torch.float32
    with pytest.raises(ValueError, match="bfloat16 gains nothing on this cpu"):
        device.check_precision("bfloat16", CPU)
    can(monkeypatch, amx_bf16=True)
    assert device.check_precision("bfloat16", CPU) is torch.bfloat16


def test_unknown_precision():
    with pytest.raises(ValueError, match="unknown precision 'half'; valid: float32, bfloat16"):
        device.check_precision("half", CPU)


def test_autocast_reaches_products_and_float32_leaves_an_outer_one():
    x = torch.ones(2, 2)
    with device.autocast(CPU, torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16
        with device.autocast(CPU, torch.float32):
            assert (x @ x).dtype == torch.bfloat16
    with device.autocast(CPU, torch.float32):
        assert (x @ x).dtype == torch.float32
