"""The measurements of the other upsamplers: plain and ours agree, and every name can be chosen."""

import fnmatch

import pytest

from benchmarks import speed, upsamplers


@pytest.mark.parametrize("name", upsamplers.NAMES)
def test_rows_of_a_small_case(name, monkeypatch):
    monkeypatch.setattr(upsamplers, "CHANNELS", 24)
    rows = upsamplers.speed(name, 48)
    ways = {row["way"]: row for row in rows}
    assert ways["plain"]["max_error"] == 0 and ways["plain"]["times_faster"] == 1
    assert 0 < ways["float32"]["max_error"] < 1e-4
    assert ("bfloat16" in ways) == (name == "anyup")
    # bfloat16 stays below 0.999 at some pixels with random weights: the report says how far.
    assert min(ways[way]["min_cosine"] for way in ("plain", "float32")) > 0.9999
    assert all(row["cpu_s"] > 0 for row in rows)


def test_they_can_be_chosen_by_name(capsys):
    assert speed.main(["--list", "--only", "*/jbu/*"]) == 0
    listed = capsys.readouterr().out.split()
    assert listed == fnmatch.filter(upsamplers.MEASUREMENTS, "*/jbu/*") and len(listed) == 5
