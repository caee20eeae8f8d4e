"""The benchmark of the whole pipeline: the naive chain and ours give the same."""

from benchmarks import pipeline_speed
from benchmarks.plain import pipeline as plain_pipeline
from pipeline.app.options import SCENE


def test_all_parts_agree(random_preset, monkeypatch):
    """Small models and windows; H ≠ W, and the last window is shifted back."""
    monkeypatch.setattr(pipeline_speed, "REPEATS", dict.fromkeys(pipeline_speed.WAYS, 1))
    monkeypatch.setattr(plain_pipeline, "SIZE", (75, 110))
    monkeypatch.setattr(plain_pipeline, "PROMPTS", (1, 2))
    monkeypatch.setattr(plain_pipeline, "SCENE", SCENE._replace(words=("person", "car")))
    rows = pipeline_speed.pipeline(pipeline_speed.PARTS, random_preset)

    parts = [row for row in rows if row["section"] == "parts"]
    ways = {row["way"] for row in parts}
    assert {"plain", "float32"} <= ways
    assert [row["name"] for row in parts[:: len(ways)]] == list(pipeline_speed.PARTS)
    assert all(0 < row["cpu_s"] and 0 < row["first_s"] for row in parts)
    total = {row["way"]: row for row in rows if row["section"] == "total"}
    assert total.keys() == ways and total["plain"]["times_less_cpu"] == 1

    checks = {(r["name"], r["way"]): r for r in rows if r["section"] == "agreement"}
    for part in ("text", "clip", "loftup", "sam_image"):
        assert checks[part, "float32"]["max_error"] < 1e-4, part
        if "bfloat16" in ways:
            rough = checks[part, "bfloat16"]
            assert 0 < rough["max_error"] and rough.get("min_cosine", 1) > 0.99, part
    if "bfloat16" in ways:
        assert checks["loftup", "bfloat16"]["max_error"] < 0.02
    assert checks["loftup", "float32"]["equal_pixels"] > 0.999
    assert checks["sam_prompts", "float32"]["max_error"] < 1e-4
    assert checks["sam_prompts", "float32"]["equal_pixels"] > 0.999
