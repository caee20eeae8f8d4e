"""Models and images that several tests of the pipeline share."""

from __future__ import annotations

from pathlib import Path

import pytest

import pipeline.app.folder
from models.presets import Preset
from pipeline.config import PipelineConfig
from pipeline.segmenter import Segmenter
from tests.pipeline.app.folder_runs import save_image


@pytest.fixture(scope="session")
def random_segmenter(random_preset: Preset) -> Segmenter:
    """All models of `random_preset` with LoftUp, and settings under which it finds masks."""
    # SAM 2 knows nothing either: some of its masks are to be taken all the same.
    config = PipelineConfig(min_confidence=0.4, min_region_size=9, min_score=0.0, min_agreement=0.1)
    return Segmenter.from_preset(random_preset, device="cpu", use_loftup=True, config=config)


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """Four images; names that others would make equal. Pictures are drawn in no time."""
    monkeypatch.setattr(
        pipeline.app.folder,
        "save_picture",
        lambda path, image, result, **marks: pipeline.app.folder.write_atomically(
            path, image.tobytes()
        ),
    )
    folder = tmp_path / "photos"
    for number, name in enumerate(("a.png", "b/a.png", "b/c.bmp", "b/c.PNG")):
        save_image(folder / name, number)
    return folder
