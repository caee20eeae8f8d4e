"""What the training runs share: a time budget, checkpoints, a CSV log, batches made ahead."""

from __future__ import annotations

import argparse
import csv
import logging
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from models.device import pick_device

logger = logging.getLogger(__name__)

SAVE_EVERY = 120  # seconds
T = TypeVar("T")


class Stateful(Protocol):
    """What a checkpoint can hold: a model, an optimizer, an average, ..."""

    def state_dict(self) -> Mapping[str, Any]: ...

    def load_state_dict(self, state_dict: Any, /) -> object: ...


def add_run_options(parser: argparse.ArgumentParser, *, output: str, lr: float) -> None:
    """The options that `start_run` and `Run.from_options` read."""
    add = parser.add_argument
    add("--output", type=Path, default=Path(output), help="run folder")
    add("--steps", type=int, help="length of the run, or ...")
    add("--minutes", type=float, help="... its time, of all parts together")
    add("--device", help="cuda, mps or cpu (default: the best available)")
    add("--threads", type=int, default=1, help="CPU threads")
    add("--seed", type=int, default=1, help="seed of weights and scenes")
    add("--lr", type=float, default=lr, help="highest learning rate")
    add("--validate-every", type=int, default=500, help="steps between validations")
    add("--resume", action="store_true", help="continue from OUTPUT/last.pt")
    add("--export", type=Path, help="train nothing: write OUTPUT's average as fp16 safetensors")


def start_run(args: argparse.Namespace) -> torch.device:
    """Set threads and seed; the device to train on."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    return pick_device(args.device)


class Run:
    """A training run that fits a budget, stops cleanly and resumes where it was.

    The budget is a number of steps, or of minutes. Progress is what is spent of it, so that a
    resumed run ends its schedule like an uninterrupted one. All chance in a step has to follow
    from its number: no state of a generator is kept.

    Args:
        output: folder of `last.pt` and `log.csv`.
        state: what is saved and restored, by name.
        minutes: the budget, over all resumed parts.
        total: the budget in steps; give one of the two.
        resume: continue from `last.pt`.
        writes: this process keeps the files (one of several).
        agree: makes what one process wants (to stop) what all do.
    """

    def __init__(
        self,
        output: Path,
        state: Mapping[str, Stateful],
        *,
        minutes: float | None = None,
        total: int | None = None,
        resume: bool,
        writes: bool = True,
        agree: Callable[[bool], bool] = bool,
    ) -> None:
        if (minutes is None) == (total is None):
            raise ValueError("give the length of the run: --steps N or --minutes M, one of the two")
        self.output, self.state = output, state
        self.budget = math.inf if minutes is None else minutes * 60
        self.total, self.writes, self.agree = total, writes, agree
        self.step, self._spent, self._stop = 0, 0.0, False
        output.mkdir(parents=True, exist_ok=True)
        last = output / "last.pt"
        if resume and last.exists():
            # Our own file, yet read like anybody's: tensors and plain values only.
            saved = torch.load(last, map_location="cpu", weights_only=True)
            for name, part in state.items():
                part.load_state_dict(saved[name])
            self.step, self._spent = saved["step"], saved["spent"]
        elif last.exists():
            raise FileExistsError(f"{last} exists: add --resume to continue, or choose --output")
        self._start = time.monotonic()

    @classmethod
    def from_options(cls, args: argparse.Namespace, state: Mapping[str, Stateful]) -> Run:
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

    def rate(self, base: float, schedule: str = "cosine") -> float:
        """Learning rate: a linear warm-up, then "constant", or a "cosine" to a hundredth."""
        progress, warmup, floor = self.progress, 0.03, 0.01
        if progress < warmup:
            return base * max(progress / warmup, 0.02)
        if schedule == "constant":
            return base
        part = (progress - warmup) / (1 - warmup)
        return base * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * part)))

    def steps(self) -> Iterator[int]:
        """Step numbers. Saves now and then and at the end, but not after an error in a step."""
        previous = {s: signal.signal(s, self._on_signal) for s in (signal.SIGTERM, signal.SIGINT)}
        if self.writes:
            for path in self.output.glob("*.csv"):
                drop_rows_from(path, self.step)
        saved = time.monotonic()
        hidden = None if self.writes else True  # None: where there is no terminal
        bar = tqdm(initial=self.step, total=self.total, unit="step", mininterval=10, disable=hidden)
        try:
            with bar:
                while not self.agree(self._stop or self.progress >= 1):
                    yield self.step
                    self.step += 1
                    bar.update()
                    if time.monotonic() - saved > SAVE_EVERY:
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
        parts: dict[str, Any] = {name: part.state_dict() for name, part in self.state.items()}
        parts |= {"step": self.step, "spent": self.spent}
        temporary = self.output / "last.pt.tmp"
        torch.save(parts, temporary)
        os.replace(temporary, self.output / "last.pt")

    def log(self, file: str = "log.csv", /, **values: float) -> None:
        """Append one row to a file of the folder, under the names of its first line.

        Raises:
            ValueError: the file has other columns.
        """
        if not self.writes:
            return
        path = self.output / file
        row: dict[str, Any] = {"step": self.step, "seconds": round(self.spent, 1)}
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


class Ahead(Generic[T]):
    """Things by number, each made from its number alone; threads make the next ones ahead.

    Ask in ascending order, for each once. Use it as a context.
    """

    def __init__(self, make: Callable[[int], T], workers: int) -> None:
        self._make, self._ahead = make, workers
        self._threads = ThreadPoolExecutor(workers)
        self._coming: dict[int, Future[T]] = {}

    def __enter__(self) -> Ahead[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)

    def __getitem__(self, number: int) -> T:
        for n in range(number, number + self._ahead + 1):
            if n not in self._coming:
                self._coming[n] = self._threads.submit(self._make, n)
        return self._coming.pop(number).result()


def weighted_sum(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """The loss of a step: its terms, but those that weigh nothing, by their weights."""
    parts = (weights[name] * term for name, term in terms.items() if weights.get(name))
    return sum(parts, start=torch.zeros(()))
