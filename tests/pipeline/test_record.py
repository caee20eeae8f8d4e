"""The record of what a result was made with."""

from pipeline.record import ROOT, code, prediction_files


def test_the_code_of_predictions():
    found = {path.relative_to(ROOT).as_posix() for path in prediction_files()}
    # In packages too, and what writes label maps.
    for name in ("models/loftup/network.py", "models/dense.py", "pipeline/files/label_png.py"):
        assert name in found
    assert {"pipeline/segmenter.py", "pipeline/evaluation/runner.py"} <= found
    assert not [name for name in found if "/app/" in name or "/report/" in name]


def test_any_of_these_files_changes_the_fingerprint(tmp_path):
    for name in ("models/upsamplers/new.py", "pipeline/app/page.py", "pipeline/masks.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("one")
    prints = [code.__wrapped__(tmp_path)]
    for name in ("pipeline/app/page.py", "models/upsamplers/new.py", "pipeline/masks.py"):
        (tmp_path / name).write_text("two")
        prints.append(code.__wrapped__(tmp_path))
    assert prints[0] == prints[1] and len(set(prints)) == 3  # the page predicts nothing
