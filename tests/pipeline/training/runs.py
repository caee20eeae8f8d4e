"""Short training runs: calling them, interrupting them, and what they leave."""

import argparse
import csv
import signal
from pathlib import Path
from types import ModuleType

import pytest
import torch

from pipeline.training.loop import Run


def call(training: ModuleType, *options: str) -> int:
    """A training by its options; on a CPU, with as many threads as the tests have."""
    parser = argparse.ArgumentParser()
    training.add_arguments(parser)
    threads = str(torch.get_num_threads())
    return training.run(parser.parse_args([*options, "--device", "cpu", "--threads", threads]))


def interrupt_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal that ends a run comes in this step, counted from 1; then never again."""
    rate, left = Run.rate, [steps]

    def counted(run: Run, *args: object) -> float:
        left[0] -= 1
        if left[0] == 0:
            signal.raise_signal(signal.SIGTERM)
        return rate(run, *args)

    monkeypatch.setattr(Run, "rate", counted)


def last(folder: Path) -> dict:
    """The checkpoint of a run."""
    return torch.load(folder / "last.pt", weights_only=True)


def tensors(state: object, prefix: str = "") -> dict[str, torch.Tensor]:
    """All tensors of nested dicts and lists, by path."""
    if isinstance(state, torch.Tensor):
        return {prefix: state}
    items = enumerate(state) if isinstance(state, list) else getattr(state, "items", dict)()
    return {k: v for key, part in items for k, v in tensors(part, f"{prefix}/{key}").items()}


def different(one: Path, other: Path) -> list[str]:
    """What differs between the checkpoints of two runs."""
    first, second = tensors(last(one)), tensors(last(other))
    return [k for k in first.keys() | second.keys() if not torch.equal(first[k], second[k])]


def rows(path: Path) -> list[dict[str, str]]:
    """A log without its times."""
    with path.open() as stream:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(stream)]
