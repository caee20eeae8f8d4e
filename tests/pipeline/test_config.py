"""Settings: defaults, and what is refused."""

import dataclasses
import json

import pytest

from models.dense_methods import METHODS
from models.device import PRECISIONS
from models.upsamplers.registry import TEXT_SPACES, UPSAMPLED, UPSAMPLERS
from pipeline.config import PipelineConfig
from pipeline.masks import RULES
from pipeline.points import STRATEGIES


def test_defaults_users_rely_on():
    config = PipelineConfig()
    assert (config.min_confidence, config.min_region_size) == (0.7, 100)
    assert (config.iou_threshold, config.upsampler) == (0.8, "bilinear")


@pytest.mark.parametrize(
    ("field", "valid"),
    [
        ("attention", tuple(METHODS)),
        ("upsampler", UPSAMPLERS),
        ("upsampled", (None, *UPSAMPLED)),
        ("text_space", (None, *TEXT_SPACES)),
        ("strategy", STRATEGIES),
        ("mask_choice", RULES),
        ("precision", PRECISIONS),
    ],
)
def test_names(field, valid):
    for name in valid:
        assert getattr(PipelineConfig(**{field: name}), field) == name
    with pytest.raises(ValueError, match=f"unknown {field} 'other'; valid: ") as error:
        PipelineConfig(**{field: "other"})
    for name in filter(None, valid):
        assert name in str(error.value)


@pytest.mark.parametrize("field", ["min_confidence", "min_score", "min_agreement", "iou_threshold"])
@pytest.mark.parametrize("value", [-0.01, 1.01, 80, float("nan")])
def test_shares(field, value):
    with pytest.raises(ValueError, match=f"{field} must be between 0 and 1, got {value}"):
        PipelineConfig(**{field: value})
    assert PipelineConfig(**{field: 0}) != PipelineConfig(**{field: 1})


@pytest.mark.parametrize(
    ("field", "least"), [("min_region_size", 1), ("points_per_region", 1), ("negative_points", 0)]
)
def test_counts(field, least):
    assert getattr(PipelineConfig(**{field: least}), field) == least
    with pytest.raises(ValueError, match=f"{field} must be at least {least}, got {least - 1}"):
        PipelineConfig(**{field: least - 1})


def test_it_cannot_change_and_is_plain_data():
    config = PipelineConfig(strategy="multi")
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.strategy = "pole"
    data = json.loads(json.dumps(config.to_dict()))
    assert data["strategy"] == "multi"
    assert PipelineConfig(**data) == config
