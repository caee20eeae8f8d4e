"""What the training runs share."""

import csv

import pytest

from pipeline.training.loop import Run


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
