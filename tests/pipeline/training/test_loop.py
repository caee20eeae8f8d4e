"""What the training runs share."""

import argparse
import csv

import pytest
import torch

from pipeline.training.loop import Run, add_run_options, drop_rows_from
from pipeline.training.weights import blend


def from_options(tmp_path, *options: str) -> Run:
    parser = argparse.ArgumentParser()
    add_run_options(parser, output=str(tmp_path), lr=1.0)
    return Run.from_options(parser.parse_args(options), {})


@pytest.mark.parametrize("options", [(), ("--steps", "3", "--minutes", "1")])
def test_a_run_has_one_budget(tmp_path, options):
    with pytest.raises(ValueError, match="--steps N or --minutes M"):
        from_options(tmp_path, *options)


@pytest.mark.parametrize("option", [("--resume",), ("--export", "x.safetensors")])
def test_nothing_to_go_on_with(tmp_path, option):
    with pytest.raises(FileNotFoundError, match="train first"):
        from_options(tmp_path, "--steps", "3", *option)


def test_a_run_is_resumed_if_told_so(tmp_path):
    run = from_options(tmp_path, "--steps", "2")
    assert [*run.steps()] == [0, 1]
    with pytest.raises(FileExistsError, match="--resume"):
        from_options(tmp_path, "--steps", "3")
    assert [*from_options(tmp_path, "--steps", "3", "--resume").steps()] == [2]


def test_logs_lose_what_comes_again(tmp_path):
    log = tmp_path / "log.csv"
    log.write_text("step,loss\n0,1\n20,2\n40,3\n")
    drop_rows_from(log, 40)
    assert log.read_text() == "step,loss\n0,1\n20,2\n"
    drop_rows_from(log, 0)
    assert not log.exists()


def test_weights_are_blended_and_counters_copied():
    module = torch.nn.BatchNorm2d(1)
    module.num_batches_tracked.fill_(4)
    weights = {k: v.clone().zero_() for k, v in module.state_dict().items()}
    blend(weights, module, 0.5)
    assert weights["weight"] == 0.5 and weights["num_batches_tracked"] == 4


def test_rows_of_a_log_follow_its_header(tmp_path):
    Run(tmp_path, {}, total=3, resume=False).log(loss=0.5, rate=1e-4)
    run = Run(tmp_path, {}, total=3, resume=True)  # a later part may name them in another order
    run.step = 1
    run.log(rate=2e-4, loss=0.25)
    with (tmp_path / "log.csv").open(newline="") as stream:
        rows = [(r["step"], r["loss"], r["rate"]) for r in csv.DictReader(stream)]
    assert rows == [("0", "0.5", "0.0001"), ("1", "0.25", "0.0002")]


@pytest.mark.parametrize("values", [{"loss": 1.0}, {"loss": 1.0, "rate": 1.0, "gain": 1.0}])
def test_other_columns_are_refused(values, tmp_path):
    run = Run(tmp_path, {}, total=3, resume=False)
    run.log(loss=0.5, rate=1e-4)
    before = (tmp_path / "log.csv").read_bytes()
    with pytest.raises(ValueError, match="has the columns step, seconds, loss, rate, and this run"):
        run.log(**values)
    assert (tmp_path / "log.csv").read_bytes() == before
