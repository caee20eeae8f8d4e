"""What the training runs share: a time budget, checkpoints, moving averages, a CSV log."""

from __future__ import annotations

import csv
import logging
import math
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

logger = logging.getLogger(__name__)


class Run:
    """A training run that fits a time budget, stops cleanly and resumes where it was.

    Progress is time spent over time granted, so that a resumed run ends its schedule like an
    uninterrupted one. `steps()` yields step numbers until the budget is spent or a signal comes.

    Args:
        output: folder of `last.pt` and `log.csv`.
        state: name → object with `state_dict` / `load_state_dict` (model, optimizer, average).
        minutes: the budget, over all resumed parts.
        rng: generator of the training data; its state is saved with the rest.
        resume: continue from `last.pt`.
    """

    def __init__(
        self,
        output: Path,
        state: dict[str, object],
        *,
        minutes: float,
        rng: np.random.Generator,
        resume: bool,
        save_every: float = 120.0,
    ) -> None:
        self.output, self.state, self.rng = output, state, rng
        self.budget, self.save_every = minutes * 60, save_every
        self.step, self._spent, self._stop = 0, 0.0, False
        output.mkdir(parents=True, exist_ok=True)
        last = output / "last.pt"
        if resume and last.exists():
            # Our own file, yet read like anybody's: tensors and plain values only.
            saved = torch.load(last, map_location="cpu", weights_only=True)
            for name, part in state.items():
                part.load_state_dict(saved[name])
            self.step, self._spent = saved["step"], saved["spent"]
            rng.bit_generator.state = saved["rng"]
            torch.set_rng_state(saved["torch_rng"])
        elif last.exists():
            raise FileExistsError(f"{last} exists: add --resume to continue, or choose --output")
        self._start = time.monotonic()

    @property
    def spent(self) -> float:
        """Seconds spent in this run, earlier parts included."""
        return self._spent + time.monotonic() - self._start

    @property
    def progress(self) -> float:
        """0 at the start, 1 when the budget is spent."""
        return min(1.0, self.spent / self.budget)

    def cosine(self, base: float, *, warmup: float = 0.03, floor: float = 0.01) -> float:
        """Learning rate: linear warm-up, then a cosine from `base` to `floor · base`."""
        if self.progress < warmup:
            return base * max(self.progress / warmup, 0.02)
        part = (self.progress - warmup) / (1 - warmup)
        return base * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * part)))

    def steps(self) -> Iterator[int]:
        previous = {s: signal.signal(s, self._on_signal) for s in (signal.SIGTERM, signal.SIGINT)}
        saved = time.monotonic()
        try:
            with tqdm(initial=self.step, unit="step", mininterval=10) as bar:
                while not self._stop and self.spent < self.budget:
                    yield self.step
                    self.step += 1
                    bar.update()
                    if time.monotonic() - saved > self.save_every:
                        self.save()
                        saved = time.monotonic()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
            self.save()

    def _on_signal(self, number: int, _frame: object) -> None:
        logger.warning("signal %d: saving and stopping after this step", number)
        self._stop = True

    def save(self) -> None:
        parts = {name: part.state_dict() for name, part in self.state.items()}
        parts |= {"step": self.step, "spent": self.spent, "rng": self.rng.bit_generator.state}
        parts["torch_rng"] = torch.get_rng_state()
        temporary = self.output / "last.pt.tmp"
        torch.save(parts, temporary)
        os.replace(temporary, self.output / "last.pt")

    def log(self, **values: float) -> None:
        """Append one row to log.csv (columns: those of the file's first row)."""
        path = self.output / "log.csv"
        row = {"step": self.step, "seconds": round(self.spent, 1)}
        row |= {k: f"{v:.5g}" for k, v in values.items()}
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, row)
            if new:
                writer.writeheader()
            writer.writerow(row)


class MovingAverage:
    """Exponential moving average of a module's weights, the part of a short run worth keeping."""

    def __init__(self, module: nn.Module, decay: float = 0.999) -> None:
        self.decay, self.count = decay, 0
        self.weights = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        # Young averages forget their start faster: (1 + n) / (10 + n) is the usual ramp.
        self.count += 1
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                self.weights[name].lerp_(value, 1 - decay)
            else:
                self.weights[name].copy_(value)

    def state_dict(self) -> dict[str, object]:
        return {"weights": self.weights, "count": self.count}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.weights, self.count = state["weights"], state["count"]
