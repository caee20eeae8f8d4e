"""The CLIP training: short runs, stopped and resumed."""

import argparse
import csv
import signal
from types import ModuleType

import numpy as np
import pytest
import torch

from pipeline.training.clip import train as clip_training
from pipeline.training.loop import Run


class Stopper:
    """Sends the signal that ends a run after two more steps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left, cosine = 2, Run.cosine

        def counted(run: Run, *args, **kwargs) -> float:
            self.left -= 1
            if not self.left:
                signal.raise_signal(signal.SIGTERM)
            return cosine(run, *args, **kwargs)

        monkeypatch.setattr(Run, "cosine", counted)


def call(training: ModuleType, *options: str) -> int:
    parser = argparse.ArgumentParser()
    training.add_arguments(parser)
    return training.run(parser.parse_args([*options, "--threads", str(torch.get_num_threads())]))


def rows(folder) -> list[dict[str, str]]:
    with (folder / "log.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_resumed_clip_run_is_the_uninterrupted_one(tmp_path, monkeypatch):
    options = ("--steps", "4", "--batch", "2", "--device", "cpu", "--validate-every", "99")
    monkeypatch.setattr(clip_training, "validate", lambda *_: 12.5)
    call(clip_training, *options, "--output", str(tmp_path / "whole"))
    stopper = Stopper(monkeypatch)
    parts = ("--output", str(tmp_path / "parts"))
    call(clip_training, *options, *parts)
    assert torch.load(tmp_path / "parts" / "last.pt", weights_only=True)["step"] == 2
    stopper.left = 99
    call(clip_training, *options, *parts, "--resume")
    whole, resumed = (
        torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("whole", "parts")
    )
    assert whole["step"] == resumed["step"] == 4
    for part in ("model", "average"):
        one, other = (run[part].get("weights", run[part]) for run in (whole, resumed))
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert rows(tmp_path / "whole")[-1]["mIoU"] == "12.5"  # the last step is validated


@pytest.mark.parametrize("options", [(), ("--steps", "3", "--minutes", "1")])
def test_a_run_has_one_budget(tmp_path, options):
    with pytest.raises(ValueError, match="--steps N or --minutes M"):
        call(clip_training, "--output", str(tmp_path), *options)


@pytest.mark.parametrize("option", [("--resume",), ("--export", "x.safetensors")])
def test_nothing_to_go_on_with(tmp_path, option):
    with pytest.raises(FileNotFoundError, match="train first"):
        call(clip_training, "--output", str(tmp_path), "--steps", "3", *option)


def test_clip_run_stops_and_resumes(tmp_path, monkeypatch):
    options = ("--output", str(tmp_path), "--minutes", "9", "--batch", "2")
    stopper = Stopper(monkeypatch)
    assert call(clip_training, *options) == 0
    assert torch.load(tmp_path / "last.pt", weights_only=True)["step"] == 2
    with pytest.raises(FileExistsError, match="--resume"):
        call(clip_training, *options)
    stopper.left = 2
    assert call(clip_training, *options, "--resume") == 0
    assert torch.load(tmp_path / "last.pt", weights_only=True)["step"] == 4
    row = rows(tmp_path)[0]
    assert all(np.isfinite(float(row[name])) for name in ("csa", "region", "caption"))
