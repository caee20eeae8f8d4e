"""The optimizers of the training runs: AdamW, NAdam, or Muon on matrices, AdamW on the rest."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class Optimizers:
    """Optimizers by name that share a learning rate."""

    def __init__(self, **parts: torch.optim.Optimizer) -> None:
        self.parts = parts

    def step(self, lr: float) -> None:
        """One update at this learning rate."""
        for part in self.parts.values():
            for group in part.param_groups:
                group["lr"] = lr
            part.step()

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, part in self.parts.items():
            part.load_state_dict(state[name])


def adamw(module: nn.Module, lr: float) -> Optimizers:
    """AdamW as torch has it, on everything."""
    return Optimizers(adamw=torch.optim.AdamW(_trained(module), lr=lr))


def nadam(module: nn.Module, lr: float) -> Optimizers:
    """NAdam as torch has it, on everything."""
    return Optimizers(nadam=torch.optim.NAdam(_trained(module), lr=lr))


def muon_adamw(module: nn.Module, lr: float, *, weight_decay: float = 0.05) -> Optimizers:
    """Muon (Jordan et al., 2024) on the linear layers' matrices, AdamW on everything else.

    Muon makes the most of runs of only some thousand steps. Its updates are scaled to AdamW's
    size, so one learning rate serves both. Vectors are not decayed.
    """
    matrices = [p for p in _matrices(module) if p.requires_grad]
    chosen = {id(p) for p in matrices}
    rest = [p for p in _trained(module) if id(p) not in chosen]
    muon = torch.optim.Muon(
        matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
    )
    groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    return Optimizers(
        muon=muon, adamw=torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), fused=True)
    )


def _trained(module: nn.Module) -> list[nn.Parameter]:
    return [p for p in module.parameters() if p.requires_grad]


def _matrices(module: nn.Module) -> list[nn.Parameter]:
    """Weights of linear layers and of attention's joint input projection.

    Not tables (embeddings) and not thin ones, whose rows cannot be made orthogonal.
    """
    found = []
    for name, parameter in module.named_parameters():
        owner = module.get_submodule(name.rpartition(".")[0])
        linear = isinstance(owner, nn.Linear) or name.endswith("in_proj_weight")
        if linear and parameter.ndim == 2 and min(parameter.shape) >= 16:
            found.append(parameter)
    return found
