"""Fixtures for all tests."""

from __future__ import annotations

import os
from pathlib import Path

# Read when torch is imported. Several test processes with several threads each hinder one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from safetensors.torch import save_file

from models.loftup.network import LoftUp
from models.presets import MODELS, AutomaticMasks, ClipPreset, Preset, SamPreset, Source
from models.protocols import Protocol
from models.sam2_networks import build_sam2
from models.weights import build_clip


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-slow", action="store_true", help="also run the tests marked slow")
    parser.addoption("--page-picture", help="file for a picture of the page, by its slow test")
    parser.addoption("--fuzz-runs", type=int, default=1000, help="cases of the slow fuzz test")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--run-slow") or "slow" in config.getoption("-m"):
        return
    skip = pytest.mark.skip(reason="takes minutes: pytest --run-slow, or -m slow for these alone")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def random_preset(tmp_path_factory: pytest.TempPathFactory) -> Preset:
    """All models of the `tiny` preset with random weights, read from files; small windows.

    What it says about an image means nothing, but it takes the way of the real ones. Words are
    nearly equally probable; a protocol with a larger logit scale tells them apart.
    """
    folder: Path = tmp_path_factory.mktemp("random_preset")
    torch.manual_seed(0)
    clip, _ = build_clip(MODELS / "tiny" / "clip")
    save_file(clip.state_dict(), folder / "clip.safetensors")
    torch.save(LoftUp(128).state_dict(), folder / "loftup.bin")
    torch.save({"model": build_sam2(MODELS / "tiny" / "sam2_tiny.yaml").state_dict()},
               folder / "sam2.pt")  # fmt: skip
    return Preset(
        name="random",
        clip=ClipPreset(
            architecture=MODELS / "tiny" / "clip",
            features="tiny-clip",
            source=Source(path=folder / "clip.safetensors"),
        ),
        loftup=folder / "loftup.bin",
        sam=SamPreset(
            model_cfg=MODELS / "tiny" / "sam2_tiny.yaml",
            source=Source(path=folder / "sam2.pt"),
            regions=AutomaticMasks(points_per_side=2, predicted_iou=0, stability=0),
        ),
        protocol=Protocol(
            name="random", logit_scale=40, short_side=48, long_side=256, window=48, stride=24
        ),
        loftup_share=1.0,
        text_space="restored",
        proxies={"": "sam2"},
    )
