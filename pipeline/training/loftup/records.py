"""What a training run keeps beside weights: its settings, its best, TensorBoard logs, curves."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any


class Settings:
    """Everything a run was started with that changes its steps; part of a checkpoint."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    def write(self, folder: Path) -> None:
        """Write settings.json."""
        (folder / "settings.json").write_text(json.dumps(self.values, indent=1) + "\n")

    def state_dict(self) -> dict[str, Any]:
        return self.values

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """ValueError unless the run to resume had the same settings."""
        keys = [k for k in {**state, **self.values} if state.get(k) != self.values.get(k)]
        if keys:
            was = ", ".join(f"{k} {state.get(k)} (now {self.values.get(k)})" for k in keys)
            raise ValueError(f"the run to resume had other settings: {was}; use them again")


class Best:
    """The highest score so far; part of a checkpoint."""

    def __init__(self) -> None:
        self.step, self.score = -1, -math.inf

    def improves(self, step: int, score: float) -> bool:
        """Remember a score; whether it is the best so far."""
        if not score > self.score:
            return False
        self.step, self.score = step, score
        return True

    def state_dict(self) -> dict[str, float]:
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, float]) -> None:
        vars(self).update(state)


class TensorBoard:
    """Numbers for TensorBoard, in the run's folder.

    Raises:
        ValueError: it is not installed; the message says how to.
    """

    def __init__(self, folder: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError as error:
            raise ValueError(
                "--tensorboard needs TensorBoard: pip install tensorboard (log.csv is written "
                "without it)"
            ) from error
        # What a killed run wrote after its last checkpoint is hidden.
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def add(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()


def read_rows(path: Path) -> dict[str, list[float]]:
    """Columns of a log by name; empty without the file."""
    if not path.is_file():
        return {}
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return {name: [float(row[name]) for row in rows] for name in rows[0]} if rows else {}


def draw_curves(folder: Path) -> None:
    """curves.png: loss and terms of log.csv, measures of validation.csv."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    training, held_out = read_rows(folder / "log.csv"), read_rows(folder / "validation.csv")
    panels = [
        ("training loss", training, lambda n: n not in ("step", "seconds", "lr", "cosine"), "log"),
        ("cosine with the target", held_out, lambda n: n.startswith("cosine"), "linear"),
        ("held-out mIoU, % (dashed: near outlines)", held_out,
         lambda n: n not in ("step", "seconds", "done") and "cosine" not in n, "linear"),
    ]  # fmt: skip
    for axes, (title, columns, shown, scale) in zip(figure.subplots(1, 3), panels, strict=True):
        colours: dict[str, Any] = {}
        for name in filter(shown, columns):
            base = name.removesuffix("_edge")
            at = columns.get("done") or columns["step"]
            (line,) = axes.plot(
                at, columns[name], "--" if name.endswith("_edge") else "-",
                label=base if not name.endswith("_edge") else None, color=colours.get(base),
            )  # fmt: skip
            colours[base] = line.get_color()
        axes.set(title=title, xlabel="step", yscale=scale)
        if colours:
            axes.legend(fontsize="small")
    figure.savefig(folder / "curves.png", dpi=120)
