"""The optimizers of the training runs: AdamW, or Muon for matrices and AdamW for the rest."""

from __future__ import annotations

import torch
from torch import nn


class PlainAdamW:
    """AdamW as torch has it, on everything."""

    def __init__(self, module: nn.Module, lr: float) -> None:
        self.adamw = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=lr)

    def step(self, lr: float) -> None:
        """One update at this learning rate."""
        for group in self.adamw.param_groups:
            group["lr"] = lr
        self.adamw.step()

    def state_dict(self) -> dict[str, object]:
        return self.adamw.state_dict()

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.adamw.load_state_dict(state)


class MuonAdamW:
    """Muon (Jordan et al., 2024) on the linear layers' matrices, AdamW on everything else.

    Muon makes the most of runs of only some thousand steps. Its updates are scaled to AdamW's
    size, so one learning rate serves both. Vectors are not decayed.
    """

    def __init__(self, module: nn.Module, lr: float, *, weight_decay: float = 0.05) -> None:
        trained = [p for p in module.parameters() if p.requires_grad]
        matrices = [p for p in _matrices(module) if p.requires_grad]
        chosen = {id(p) for p in matrices}
        rest = [p for p in trained if id(p) not in chosen]
        self.muon = torch.optim.Muon(
            matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
        )
        groups = [
            {"params": [p for p in rest if p.ndim >= 2], "weight_decay": weight_decay},
            {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.adamw = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), fused=True)

    def step(self, lr: float) -> None:
        """One update at this learning rate."""
        for part in (self.muon, self.adamw):
            for group in part.param_groups:
                group["lr"] = lr
            part.step()

    def state_dict(self) -> dict[str, object]:
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.muon.load_state_dict(state["muon"])
        self.adamw.load_state_dict(state["adamw"])


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
