"""The speed benchmark: its plain oracles, its memory figure, its report."""

import fnmatch
import functools
import json

import pytest
import torch

from benchmarks import measuring, speed
from benchmarks.plain.loftup import plain_loftup
from models.loftup.network import LoftUp
from models.naf.network import NAF
from tests.golden import load, max_error, weights


@torch.no_grad()
def test_the_plain_computation_matches_the_reference():
    golden = load("loftup")
    loftup = LoftUp(16)
    loftup.load_state_dict(weights(golden))
    output = plain_loftup(loftup.eval(), golden["case0.lr_feats"], golden["case0.image"])
    assert max_error(output, golden["case0.output"]) < 1e-4


def test_memory_of_scores_is_set_by_the_tile():
    """In a fresh process; the plain computation takes half a GiB for this image."""
    row = measuring.run_fresh(speed.memory, "44", "scores", 448, 3, threads=1)[0]
    assert row["above_loaded_mib"] - 21 * 448**2 * 4 / 2**20 < 100  # beside the scores themselves


def test_measure_tells_the_first_call_apart():
    calls = []
    row = measuring.measure(lambda: calls.append(sum(range(10**6 if not calls else 1))), repeats=3)
    assert len(calls) == 4
    assert row["first_s"] > 10 * row["median_s"] > 0 and row["spread_s"] >= 0


def test_report(tmp_path, capsys, monkeypatch):
    row = {"section": "machine", "precision": "float32", "gflops_per_second": 1234.5}
    row["gflops_per_cpu_second"] = 617.25
    monkeypatch.setattr(measuring, "run_fresh", lambda *_, **__: [row])
    assert speed.main(["--only", "machine/float32", "--output", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0]) == row
    data = json.loads((tmp_path / "results.json").read_text())
    assert data["rows"] == [row] and data["about"]["torch"] == torch.__version__.split("+")[0]
    assert "| float32 | 1234 | 617.2 |" in (tmp_path / "report.md").read_text()


def test_speed_rows_of_a_small_loftup(monkeypatch):
    monkeypatch.setattr(speed, "machine", lambda precision: [{"gflops_per_cpu_second": 10.0}])
    rows = speed.speed("12", 32)
    by_way = {row["way"]: row for row in rows if row["section"] == "speed"}
    assert by_way["plain"]["max_error"] == 0 and by_way["plain"]["times_faster"] == 1
    assert by_way["float32"]["max_error"] < 1e-4
    assert 0.999 < by_way["bfloat16"]["min_cosine"] < 1
    parts = [row for row in rows if row["section"] == "parts"]
    assert len(parts) == 4 and all(row["cpu_s"] > 0 for row in parts)


@pytest.mark.parametrize("name", speed.OTHERS)
def test_speed_rows_of_the_others(name, monkeypatch):
    monkeypatch.setattr(speed, "CHANNELS", 24)
    monkeypatch.setattr("models.naf.network.NAF", functools.partial(NAF, 16))
    size = 144 if name == "naf" else 32  # the plain NAF needs nine patches a side
    rows = {row["way"]: row for row in speed.speed(name, size)}
    assert rows["plain"]["max_error"] == 0 and rows["plain"]["times_faster"] == 1
    assert 0 < rows["float32"]["max_error"] < 1e-4
    assert ("bfloat16" in rows) == (name in ("anyup", "naf"))
    # bfloat16 stays below 0.999 at some pixels with random weights: the report says how far.
    assert min(rows[way]["min_cosine"] for way in ("plain", "float32")) > 0.9999
    assert all(row["cpu_s"] > 0 for row in rows.values())


def test_they_can_be_chosen_by_name(capsys):
    assert speed.main(["--list", "--only", "*/jbu/*"]) == 0
    listed = capsys.readouterr().out.split()
    assert listed == fnmatch.filter(speed.MEASUREMENTS, "*/jbu/*") and len(listed) == 5


def test_unknown_names_are_refused(capsys):
    with pytest.raises(SystemExit) as error:
        speed.main(["--only", "nothing"])
    assert error.value.code == 2
    assert "fits no measurement; see --list" in capsys.readouterr().err
