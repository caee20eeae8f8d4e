"""What the training runs share: a time budget, checkpoints, moving averages, a CSV log."""

from __future__ import annotations

import argparse
import csv
import logging
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

logger = logging.getLogger(__name__)


class Run:
    """A training run that fits a budget, stops cleanly and resumes where it was.

    The budget is a number of steps, or of minutes. Progress is what is spent of it, so that a
    resumed run ends its schedule like an uninterrupted one. `steps()` yields step numbers until
    the budget is spent or a signal comes.

    Args:
        output: folder of `last.pt` and `log.csv`.
        state: name → object with `state_dict` / `load_state_dict` (model, optimizer, average).
        minutes: the budget, over all resumed parts.
        total: the budget in steps; give one of the two.
        rng: generator of the training data; its state and torch's are saved with the rest. None
            where all chance in a step follows from its number.
        resume: continue from `last.pt`.
        writes: this process keeps the files (one of several).
        agree: makes what one process wants (to stop) what all do.
    """

    def __init__(
        self,
        output: Path,
        state: dict[str, object],
        *,
        minutes: float | None = None,
        total: int | None = None,
        rng: np.random.Generator | None = None,
        resume: bool,
        save_every: float = 120.0,
        writes: bool = True,
        agree: Callable[[bool], bool] = bool,
    ) -> None:
        if (minutes is None) == (total is None):
            raise ValueError("a run has a budget of steps or of minutes: give one of the two")
        self.output, self.state, self.rng = output, state, rng
        self.budget = math.inf if minutes is None else minutes * 60
        self.total, self.save_every = total, save_every
        self.writes, self.agree = writes, agree
        self.step, self._spent, self._stop = 0, 0.0, False
        output.mkdir(parents=True, exist_ok=True)
        last = output / "last.pt"
        if resume and last.exists():
            # Our own file, yet read like anybody's: tensors and plain values only.
            saved = torch.load(last, map_location="cpu", weights_only=True)
            for name, part in state.items():
                part.load_state_dict(saved[name])
            self.step, self._spent = saved["step"], saved["spent"]
            if rng is not None:
                rng.bit_generator.state = saved["rng"]
                torch.set_rng_state(saved["torch_rng"])
        elif last.exists():
            raise FileExistsError(f"{last} exists: add --resume to continue, or choose --output")
        self._start = time.monotonic()

    @classmethod
    def from_options(cls, args: argparse.Namespace, state: dict[str, object]) -> Run:
        """The run that a training's options ask for; with `--export`, the one there is.

        Raises:
            ValueError: `--steps` and `--minutes` are both given, or neither.
            FileNotFoundError: there is no checkpoint to export or to resume from.
        """
        last = args.output / "last.pt"
        if (args.export or args.resume) and not last.is_file():
            raise FileNotFoundError(f"{last} does not exist: train first, without --resume")
        if args.export:
            return cls(args.output, state, total=0, resume=True)
        if (args.steps is None) == (args.minutes is None):
            raise ValueError("give the length of the run: --steps N or --minutes M, one of the two")
        return cls(args.output, state, minutes=args.minutes, total=args.steps, resume=args.resume)

    @property
    def spent(self) -> float:
        """Seconds spent in this run, earlier parts included."""
        return self._spent + time.monotonic() - self._start

    @property
    def progress(self) -> float:
        """0 at the start, 1 when the budget is spent."""
        return self.progress_at(self.step)

    def progress_at(self, step: int) -> float:
        """Progress before step number `step`; with a budget of minutes, that of now."""
        if self.total is not None:
            return min(1.0, step / max(1, self.total))
        return min(1.0, self.spent / self.budget) if self.budget > 0 else 1.0

    def last(self, step: int) -> bool:
        """Whether the run ends after step number `step`."""
        return self.progress_at(step + 1) >= 1

    def rate(self, base: float, schedule: str, *, warmup: float = 0.03) -> float:
        """Learning rate of a schedule: "cosine", or "constant" after the same linear warm-up."""
        if schedule == "cosine" or self.progress < warmup:
            return self.cosine(base, warmup=warmup)
        return base

    def cosine(self, base: float, *, warmup: float = 0.03, floor: float = 0.01) -> float:
        """Learning rate: linear warm-up, then a cosine from `base` to `floor · base`."""
        progress = self.progress
        if progress < warmup:
            return base * max(progress / warmup, 0.02)
        part = (progress - warmup) / (1 - warmup)
        return base * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * part)))

    def steps(self) -> Iterator[int]:
        """Step numbers. Saves now and then and at the end, but not after an error in a step."""
        previous = {s: signal.signal(s, self._on_signal) for s in (signal.SIGTERM, signal.SIGINT)}
        if self.writes:
            for path in self.output.glob("*.csv"):
                drop_rows_from(path, self.step)
        saved = time.monotonic()
        bar = tqdm(
            initial=self.step,
            total=self.total,
            unit="step",
            mininterval=10,
            disable=None if self.writes else True,
        )
        try:
            with bar:
                while not self.agree(self._stop or self.progress >= 1):
                    yield self.step
                    self.step += 1
                    bar.update()
                    if time.monotonic() - saved > self.save_every:
                        self.save()
                        saved = time.monotonic()
            self.save()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: object) -> None:
        logger.warning("signal %d: saving and stopping after this step", number)
        self._stop = True

    def save(self) -> None:
        if not self.writes:
            return
        parts = {name: part.state_dict() for name, part in self.state.items()}
        parts |= {"step": self.step, "spent": self.spent}
        if self.rng is not None:
            parts |= {"rng": self.rng.bit_generator.state, "torch_rng": torch.get_rng_state()}
        temporary = self.output / "last.pt.tmp"
        torch.save(parts, temporary)
        os.replace(temporary, self.output / "last.pt")

    def log(self, file: str = "log.csv", **values: float) -> None:
        """Append one row to a file of the folder, under the names of its first line.

        Raises:
            ValueError: the file has other columns.
        """
        if not self.writes:
            return
        path = self.output / file
        row = {"step": self.step, "seconds": round(self.spent, 1)}
        row |= {k: f"{v:.5g}" for k, v in values.items()}
        with path.open("a+", newline="") as stream:
            stream.seek(0)
            columns = next(csv.reader(stream), None)
            writer = csv.DictWriter(stream, columns or list(row))
            if columns is None:
                writer.writeheader()
            elif set(columns) != row.keys():
                raise ValueError(
                    f"{path} has the columns {', '.join(columns)}, and this run writes "
                    f"{', '.join(row)}: choose another --output"
                )
            writer.writerow(row)


def checkpoint_step(folder: Path) -> int:
    """Steps done in a run folder; 0 without a checkpoint."""
    last = folder / "last.pt"
    if not last.is_file():
        return 0
    return torch.load(last, map_location="cpu", weights_only=True, mmap=True)["step"]


def drop_rows_from(path: Path, step: int) -> None:
    """Take out of a log what a killed run wrote after its last checkpoint; it comes anew."""
    lines = path.read_text().splitlines(keepends=True)
    kept = [line for i, line in enumerate(lines) if not i or int(line.split(",")[0]) < step]
    if len(kept) <= 1:  # nothing under the header
        path.unlink()
    elif len(kept) < len(lines):
        path.write_text("".join(kept))


@torch.no_grad()
def blend(weights: dict[str, torch.Tensor], module: nn.Module, decay: float) -> None:
    """In place: decay · weights + (1 − decay) · the module's; counters are copied."""
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            weights[name].lerp_(value, 1 - decay)
        else:
            weights[name].copy_(value)


class MovingAverage:
    """Exponential moving average of a module's weights, the part of a short run worth keeping."""

    def __init__(self, module: nn.Module, decay: float = 0.999) -> None:
        self.decay, self.count = decay, 0
        self.weights = {k: v.detach().clone() for k, v in module.state_dict().items()}

    def update(self, module: nn.Module) -> None:
        # Young averages forget their start faster: (1 + n) / (10 + n) is the usual ramp.
        self.count += 1
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        blend(self.weights, module, decay)

    def state_dict(self) -> dict[str, object]:
        return {"weights": self.weights, "count": self.count}

    def load_state_dict(self, state: dict[str, object]) -> None:
        for name, value in state["weights"].items():
            self.weights[name].copy_(value)  # on its own device
        self.count = state["count"]
