"""The named backbones: what their rows say is what timm builds and the LoftUps were made for."""

import dataclasses
import functools
import re
from pathlib import Path

import pytest
import timm
import torch

import models.backbones.build
import models.weights
from models.backbones.build import build_backbone
from models.backbones.registry import BACKBONES, backbone_names
from models.loftup.network import LoftUp
from models.presets import LOFTUPS, PRESETS
from models.upsamplers.registry import load_upsampler

ROOT = Path(__file__).parents[3]
PREFIX = {"dinov2_vits14": 1, "dinov2_vitb14": 1, "dinov2_vits14_reg": 5, "dinov2_vitb14_reg": 5}


def loftup_of(name: str) -> str | None:
    kind = BACKBONES[name].features or name
    return next((key for key, preset in LOFTUPS.items() if preset.features == kind), None)


WITH_LOFTUP = [name for name in BACKBONES if loftup_of(name)]
PROXIES = {"dino_vitb8": (768, 8, 1), "dino_vitb8_qk": (768, 8, 1), "dinov3_vits16": (384, 16, 5),
           "dinov3_vitb16": (768, 16, 5)}  # fmt: skip


def test_every_published_loftup_has_its_backbone():
    published = {name for name, preset in LOFTUPS.items() if preset.source.repo_id}
    assert {loftup_of(name) for name in WITH_LOFTUP} == published and len(published) == 7
    assert (
        backbone_names()[: len(PRESETS)] == tuple(PRESETS) and "dinov2_vitb14" in backbone_names()
    )


@pytest.mark.parametrize("name", [name for name in WITH_LOFTUP if name != "maskclip_vitb16"])
def test_width_patch_and_tokens(name):
    with torch.device("meta"):
        model = timm.create_model(BACKBONES[name].network.removeprefix("timm:"), num_classes=0)
    loftup = LOFTUPS[loftup_of(name)]
    assert model.num_features == loftup.dim
    assert model.patch_embed.patch_size == (loftup.patch, loftup.patch)
    assert model.num_prefix_tokens == PREFIX.get(name, 0)
    assert model.pretrained_cfg["hf_hub_id"].startswith("timm/")
    grid = (37, 37) if name in PREFIX else (14, 14)
    assert model.patch_embed.grid_size == grid
    # Only without registers is DINOv2 evaluated with offset scale factors.
    assert (BACKBONES[name].positions == "offset") == (PREFIX.get(name) == 1)


def test_those_without_a_loftup_are_proxies():
    assert {name for name in BACKBONES if name not in WITH_LOFTUP} == set(PROXIES)
    for name, (dim, patch, prefix) in PROXIES.items():
        with torch.device("meta"):
            model = timm.create_model(BACKBONES[name].network.removeprefix("timm:"), num_classes=0)
        assert (model.num_features, model.num_prefix_tokens) == (dim, prefix)
        assert model.patch_embed.patch_size == (patch, patch)
        assert model.pretrained_cfg["hf_hub_id"].startswith("timm/")


def test_a_clip_by_name_sees_imagenets_statistics(monkeypatch):
    row = BACKBONES["maskclip_vitb16"]
    assert row.features == PRESETS[row.network].clip.features == LOFTUPS["loftup_clip"].features
    monkeypatch.setitem(BACKBONES, "small", dataclasses.replace(row, network="tiny", features=""))
    backbone = build_backbone("small")
    assert backbone.kind == "small" and backbone.dim == 128 and backbone.text is not None
    own = build_backbone("tiny", attention="maskclip")
    images = torch.randint(0, 256, (1, 3, 32, 48), dtype=torch.uint8)
    mean, std = (
        torch.tensor(v).view(3, 1, 1)
        for v in (timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD)
    )
    expected = own.encode((images / 255 - mean) / std)
    torch.testing.assert_close(backbone.features(images), expected)
    assert not torch.allclose(own.features(images), expected, atol=1e-4)
    for attention in ("csa", "vanilla"):
        with pytest.raises(ValueError, match="is --attention maskclip, not"):
            build_backbone("small", attention=attention)


@pytest.mark.parametrize(
    ("spec", "name", "message"),
    [
        (
            "timm:test_resnet",
            "loftup_dinov2s",
            "loftup_dinov2s upsamples dinov2_vits14 features, not timm:test_resnet; for "
            "timm:test_resnet: none, train one with scripts/train_loftup.py",
        ),
        ("tiny", "loftup_clip", "not tiny-clip; for tiny-clip: loftup_tiny"),
    ],
)
def test_a_loftup_for_another_backbone_is_refused_before_it_is_fetched(spec, name, message):
    backbone = build_backbone(spec, random_weights=True)
    with pytest.raises(ValueError, match=message):
        load_upsampler(name, backbone=backbone)


def test_weights_of_another_width_are_refused():
    backbone = build_backbone("timm:test_resnet", random_weights=True)
    file = LOFTUPS["loftup_tiny"].source.path
    with pytest.raises(ValueError, match="upsamples 128 channels, the features of timm:test_res"):
        load_upsampler("loftup", file, backbone=backbone)
    tiny = build_backbone("tiny", random_weights=True)
    images = torch.randint(0, 256, (1, 3, 32, 48), dtype=torch.uint8)
    upsampler = load_upsampler("loftup_tiny", backbone=tiny)
    upsampled = upsampler.upsample(tiny.features(images), images / 255, (32, 48))
    assert upsampled.shape == (1, 128, 32, 48)


def test_the_readmes_pair_of_backbone_and_loftup(monkeypatch):
    """As it is written there, on random weights of the published shape."""
    asked = []

    def load_random(name: str) -> LoftUp:
        asked.append(name)
        return LoftUp(LOFTUPS[name].dim).eval().requires_grad_(False)

    monkeypatch.setattr(models.weights, "load_loftup", load_random)
    random = functools.partial(build_backbone, random_weights=True)
    monkeypatch.setattr(models.backbones.build, "build_backbone", random)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = (b for b in re.findall(r"```python\n(.*?)```", readme, re.S) if "build_back" in b)
    names: dict = {}
    exec(compile(block, "README.md", "exec"), names)
    assert asked == ["loftup_dinov2s"]
    assert names["features"].shape == (1, 384, 8, 12)
    assert names["upsampled"].shape == (1, 384, 112, 168)
    for name in (*WITH_LOFTUP, *map(loftup_of, WITH_LOFTUP)):
        assert f"`{name}`" in readme
