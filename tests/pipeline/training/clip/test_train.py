"""The CLIP training: short runs, stopped and resumed."""

import json
from math import isfinite

from pipeline.training.clip import train as training

from ..runs import call, different, interrupt_after, last, rows


def test_resumed_is_uninterrupted(tmp_path, monkeypatch):
    config = json.loads((training.CONFIG / "open_clip_config.json").read_text())
    config["model_cfg"]["embed_dim"] = 16
    config["model_cfg"]["vision_cfg"] |= {"layers": 2, "width": 64}
    config["model_cfg"]["text_cfg"] |= {"width": 32, "layers": 1}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    monkeypatch.setattr(training, "CONFIG", tmp_path)
    options = ("--steps", "4", "--batch", "2", "--validate-every", "99", "--output")
    monkeypatch.setattr(training, "validate", lambda *_: 12.5)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    call(training, *options, str(whole))
    interrupt_after(2, monkeypatch)
    call(training, *options, str(parts))
    assert last(parts)["step"] == 2
    call(training, *options, str(parts), "--resume")
    assert last(whole)["step"] == last(parts)["step"] == 4
    assert not different(whole, parts)
    first, end = rows(whole / "log.csv")
    assert all(isfinite(float(first[name])) for name in ("csa", "region", "caption"))
    assert end["mIoU"] == "12.5"  # the last step is validated
