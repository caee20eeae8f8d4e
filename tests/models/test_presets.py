"""Presets are data: what is tested is that they agree with each other and with the networks."""

import json

import open_clip
import pytest

from models.presets import LOFTUPS, PRESETS, get_preset, loftup_for
from models.protocols import get_protocol
from models.sam2_networks import find_config
from models.weights import build_clip, load_clip, load_loftup, load_sam2, published_sam2


def test_names():
    assert set(PRESETS) == {"vit-b16", "tiny"}
    for name, preset in PRESETS.items():
        assert get_preset(name) is preset and preset.name == name
    with pytest.raises(ValueError, match=r"unknown preset 'vit-l14'; valid: vit-b16, tiny"):
        get_preset("vit-l14")


@pytest.mark.parametrize("name", PRESETS)
def test_parts_agree(name):
    preset = PRESETS[name]
    loftup = loftup_for(preset.clip.features, preset.loftup)
    if isinstance(preset.clip.architecture, str):
        config = open_clip.get_model_config(preset.clip.architecture)
    else:
        text = (preset.clip.architecture / "open_clip_config.json").read_text(encoding="utf-8")
        config = json.loads(text)["model_cfg"]
    assert loftup.dim == config["embed_dim"]
    assert loftup.patch == config["vision_cfg"]["patch_size"]
    assert get_protocol(preset.protocol).window % loftup.patch == 0
    assert find_config(preset.sam.model_cfg).is_file()
    assert preset.sam.source or published_sam2(preset.sam.model_cfg)


def test_openai_weights_get_quick_gelu(caplog):
    clip, tokenizer = build_clip(PRESETS["vit-b16"].clip.architecture)
    assert not caplog.records  # open_clip itself would warn of missing weights
    usual = open_clip.create_model("ViT-B-16-quickgelu", pretrained=None)
    assert str(clip) == str(usual)
    kinds = {type(m).__name__ for m in clip.modules()}
    assert "QuickGELU" in kinds and "GELU" not in kinds
    assert tuple(clip.visual.image_mean) == pytest.approx(open_clip.OPENAI_DATASET_MEAN)
    assert tuple(clip.visual.image_std) == pytest.approx(open_clip.OPENAI_DATASET_STD)
    assert tokenizer(["a photo of a cat."]).shape == (1, 77)


@pytest.mark.parametrize(
    ("name", "dim", "patch"),
    [
        ("loftup_clip", 512, 16),
        ("loftup_dinov2s", 384, 14),
        ("loftup_dinov2s_reg", 384, 14),
        ("loftup_dinov2b", 768, 14),
        ("loftup_dinov2b_reg", 768, 14),
        ("loftup_siglip", 768, 16),
        ("loftup_siglip2", 768, 16),
    ],
)
def test_published_loftups(name, dim, patch):
    preset = LOFTUPS[name]
    assert (preset.dim, preset.patch) == (dim, patch)
    assert preset.source.repo_id == f"haiwen/{name.replace('_', '-', 1)}"
    assert preset.source.filenames == ("pytorch_model.bin",)
    assert loftup_for(preset.features, name) is preset


def test_a_loftup_for_other_features_names_those_that_fit():
    with pytest.raises(
        ValueError,
        match=r"loftup_siglip upsamples siglip_vitb16 features, not clip-vit-b16; "
        r"for clip-vit-b16: loftup_clip$",
    ):
        loftup_for("clip-vit-b16", "loftup_siglip")
    with pytest.raises(ValueError, match=r"for tiny-clip: loftup_tiny$"):
        loftup_for("tiny-clip", "loftup_clip")
    with pytest.raises(ValueError, match=r"unknown LoftUp 'loftup'; .*: loftup_dinov2b_reg$"):
        loftup_for("dinov2_vitb14_reg", "loftup")
    with pytest.raises(ValueError, match=r"for resnet: none, train one"):
        loftup_for("resnet", "loftup_clip")


def test_the_shipped_models_load():
    preset = PRESETS["tiny"]
    clip, _ = load_clip(preset.clip)
    assert clip.visual.proj.shape[1] == load_loftup(preset.loftup).dim
    assert load_sam2(preset.sam).image_size == 512
