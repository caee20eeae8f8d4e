"""The benchmark of the whole pipeline: the naive chain and ours give the same."""

from benchmarks import pipeline_speed, plain_pipeline


def test_all_parts_agree(random_preset, monkeypatch):
    """Small models and windows; H ≠ W, and the last window is shifted back."""
    monkeypatch.setattr(pipeline_speed, "REPEATS", dict.fromkeys(pipeline_speed.WAYS, 1))
    monkeypatch.setattr(plain_pipeline, "SIZE", (75, 110))
    monkeypatch.setattr(plain_pipeline, "PROMPTS", (2, 3))
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
            assert 0.99 < checks[part, "bfloat16"]["min_cosine"] < 1 - 1e-7, part
    assert checks["loftup", "float32"]["equal_pixels"] > 0.999
    assert checks["sam_prompts", "float32"]["max_error"] < 1e-4
    assert checks["sam_prompts", "float32"]["equal_pixels"] > 0.999
