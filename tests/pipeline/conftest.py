"""Models that several tests of the pipeline share."""

from __future__ import annotations

import pytest

from models.presets import Preset
from pipeline.config import PipelineConfig
from pipeline.segmenter import Segmenter


@pytest.fixture(scope="session")
def random_segmenter(random_preset: Preset) -> Segmenter:
    """All models of `random_preset` with LoftUp, and settings under which it finds masks."""
    # SAM 2 knows nothing either: some of its masks are to be taken all the same.
    config = PipelineConfig(min_confidence=0.4, min_region_size=9, min_score=0.0, min_agreement=0.1)
    return Segmenter.from_preset(random_preset, device="cpu", use_loftup=True, config=config)
