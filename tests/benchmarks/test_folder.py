"""The long run over a folder: what it compares, what it reads from the memory, one short run."""

import json

import pytest

from benchmarks import folder


def test_differences_tell_all_but_the_seconds(tmp_path):
    for side, seconds in (("a", 1.0), ("b", 2.0)):
        place = tmp_path / side
        (place / "json").mkdir(parents=True)
        (place / "json" / "x.json").write_text(json.dumps({"masks": [1], "timings": seconds}))
        (place / "summary.csv").write_text(f"name,masks,seconds\nx,1,{seconds}\n")
        (place / "same.png").write_bytes(b"pixels")
    a, b = tmp_path / "a", tmp_path / "b"
    assert folder.differences(a, b) == []
    (b / "json" / "x.json").write_text(json.dumps({"masks": [2], "timings": 1.0}))
    (b / "summary.csv").write_text("name,masks,seconds\nx,2,1.0\n")
    (b / "same.png").write_bytes(b"pixelz")
    (a / "more.png").write_bytes(b"")
    assert folder.differences(a, b) == ["json/x.json", "more.png", "same.png", "summary.csv"]


def test_growth_is_that_after_the_first_tenth():
    rows = [(i / 2, i, 500.0 if i < 10 else 700 + 0.02 * i) for i in range(101)]
    found = folder.summarise(rows, 100)
    assert found["mib_growth_per_1000_images"] == pytest.approx(20)
    assert found["mib_when_settled"] == pytest.approx(700.2)
    assert found["mib_at_the_end"] == found["mib_peak"] == 702
    assert found["seconds_per_image"] == 0.5


@pytest.mark.slow
def test_a_short_run_with_a_kill(tmp_path, capsys):
    output = tmp_path / "run"
    assert folder.main(["--images", "20", "--kills", "1", "--output", str(output)]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["files"] == 62 and result["files_that_differ"] == []
    assert 1 <= result["killed_when_done"][0] < 20
    assert (output / "memory.png").exists()
    assert json.loads((output / "results.json").read_text()) == result
