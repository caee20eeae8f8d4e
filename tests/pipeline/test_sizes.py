"""Least sizes of regions: pixels, or a share of the image."""

import numpy as np
import pytest

from pipeline.config import PipelineConfig
from pipeline.prompts import extract_prompt_points_from_upsampled
from pipeline.sizes import least_pixels, parse_size


def test_a_share_is_of_the_image():
    assert parse_size("100") == 100 and parse_size(" 0.1 %") == "0.1%" and parse_size(7) == 7
    assert least_pixels("0.1%", (100, 300)) == 30
    assert least_pixels("0.1%", (100, 301)) == 31  # no less than that
    assert least_pixels("100%", (4, 5)) == 20 and least_pixels(9, (4, 5)) == 9


@pytest.mark.parametrize("value", ["0%", "101%", "-1%", "nan%", "%", "much", "1e3"])
def test_what_is_neither_is_refused(value):
    with pytest.raises(ValueError, match="pixels, such as 100, or a share"):
        parse_size(value)
    with pytest.raises(ValueError, match="min_region_size must be pixels"):
        PipelineConfig(min_region_size=value)


def test_prompts_take_a_share():
    seg_map = np.zeros((10, 20), int)
    seg_map[:3, :4] = 1  # 12 pixels, 6 %
    probs = np.eye(2)[seg_map]
    sizes = {
        share: [
            prompt["region_size"]
            for prompt in extract_prompt_points_from_upsampled(
                seg_map, probs, ["cat", "dog"], 0.5, share
            )
        ]
        for share in ("6%", "6.1%", "95%")
    }
    assert sizes == {"6%": [188, 12], "6.1%": [188], "95%": []}


def test_it_is_recorded_as_it_was_given():
    assert PipelineConfig(min_region_size="0.1%").to_dict()["min_region_size"] == "0.1%"
