"""Backbones: their grids, their weights, and what is refused."""

import dataclasses

import pytest
import torch
from safetensors.torch import save_file

from models.backbones.build import build_backbone
from models.clip_dense import dense_features
from models.dense_methods import METHODS
from models.presets import MODELS
from models.weight_files import WeightsError, WeightsNotFoundError
from models.weights import build_clip
from tests.hub import add_to_cache

DINO = "vit_small_patch14_dinov2.lvd142m"


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, 32, 48), dtype=torch.uint8)


def test_attention_variants_of_a_preset(images):
    seen = []
    for attention in (name for name, row in METHODS.items() if not row.proxy):
        backbone = build_backbone("tiny", attention=attention, random_weights=True)
        assert (backbone.dim, backbone.patch) == (128, 16) and backbone.text.scale > 1
        features = backbone.features(images)
        clip = backbone.text.clip
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (backbone.mean, backbone.std))
        torch.testing.assert_close(
            features, dense_features(clip, (images / 255 - mean) / std, attention)
        )
        assert features.shape == (2, 128, 2, 3) and not features.requires_grad
        seen.append(features)
    assert not torch.allclose(seen[0], seen[1]) and not torch.allclose(seen[0], seen[2])


def test_a_clip_of_ones_own(tmp_path, images):
    config = (MODELS / "tiny" / "clip" / "open_clip_config.json").read_text()
    (tmp_path / "open_clip_config.json").write_text(config)
    clip, _ = build_clip(tmp_path)
    spec = f"open_clip:{tmp_path}"
    with pytest.raises(ValueError, match="add --checkpoint"):
        build_backbone(spec)
    torch.save({"state_dict": clip.state_dict()}, tmp_path / "mine.pt")
    named = build_backbone(spec, checkpoint=tmp_path / "mine.pt")
    save_file(clip.state_dict(), tmp_path / "open_clip_model.safetensors")
    found = build_backbone(spec, attention="maskclip")
    assert torch.equal(named.text.clip.visual.proj, found.text.clip.visual.proj)
    assert not torch.equal(named.features(images), found.features(images))
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "other.pt")
    with pytest.raises(WeightsError, match="does not fit"):
        build_backbone(spec, checkpoint=tmp_path / "other.pt")


@pytest.mark.parametrize(
    ("name", "prefix", "patch"),
    [(DINO, 1, 14), ("vit_small_patch16_dinov3.lvd1689m", 5, 16)],
)
def test_timm_drops_prefix_tokens(name, prefix, patch):
    backbone = build_backbone(f"timm:{name}", random_weights=True)
    assert (backbone.dim, backbone.patch, backbone.text) == (384, patch, None)
    assert backbone.mean == pytest.approx((0.485, 0.456, 0.406))
    images = torch.randint(0, 256, (1, 3, 2 * patch, 3 * patch), dtype=torch.uint8)
    features = backbone.features(images)
    assert features.shape == (1, 384, 2, 3)
    tokens = backbone.model.forward_features(backbone.normalise(images))
    assert tokens.shape[1] == prefix + 6
    torch.testing.assert_close(features[0, :, 1, 0], tokens[0, prefix + 3])
    with pytest.raises(ValueError, match="--side"):
        backbone.check_side(patch + 1)


def test_timm_weights_come_from_the_cache_or_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path), raising=False)
    with pytest.raises(WeightsNotFoundError, match="--checkpoint FILE"):
        build_backbone(f"timm:{DINO}")
    state = build_backbone(f"timm:{DINO}", random_weights=True).model.state_dict()
    path = add_to_cache(
        tmp_path, f"timm/{DINO}", "model.safetensors", lambda file: save_file(state, str(file))
    )
    loaded = build_backbone(f"timm:{DINO}").model.state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in state.items())
    with pytest.raises(WeightsError, match="does not fit"):
        build_backbone("timm:vit_tiny_patch16_224", checkpoint=path)


def test_a_classifier_in_the_file_is_left_out(tmp_path):
    state = build_backbone("timm:vit_tiny_patch16_224", random_weights=True).model.state_dict()
    head = {"head.weight": torch.zeros(1000, 192), "head.bias": torch.zeros(1000)}
    save_file({**state, **head}, tmp_path / "tiny.safetensors")
    file = tmp_path / "tiny.safetensors"
    backbone = build_backbone("timm:vit_tiny_patch16_224", checkpoint=file)
    assert torch.equal(backbone.model.state_dict()["cls_token"], state["cls_token"])


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("resnet", {}, "valid: vit-b16, tiny, dinov2_vits14"),
        ("timm:vit_nothing", {}, "unknown timm model"),
        ("timm:resnet18@5", {"random_weights": True}, "has timm:resnet18@2, timm:resnet18@4"),
        (f"timm:{DINO}", {"attention": "csa"}, "is for CLIP"),
        ("tiny", {"attention": "blur"}, "valid: csa, vanilla, maskclip"),
        ("tiny", {"attention": "corr"}, "needs a second network, which tiny has not"),
        ("open_clip:RN50", {"random_weights": True}, "VisionTransformer"),
        ("open_clip:Nothing", {"random_weights": True}, "unknown CLIP architecture"),
    ],
)
def test_refusals(spec, options, message):
    with pytest.raises(ValueError, match=message):
        build_backbone(spec, **options)


def test_a_missing_file_and_a_useless_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        build_backbone("tiny", checkpoint=tmp_path / "none.pt")
    with pytest.raises(ValueError, match="exclude each other"):
        build_backbone("tiny", checkpoint=tmp_path / "none.pt", random_weights=True)
    with pytest.raises(FileNotFoundError, match=r"open_clip_config\.json"):
        build_backbone(f"open_clip:{tmp_path}")


def test_a_backbone_can_be_made_by_hand(images):
    backbone = build_backbone("tiny")
    doubled = dataclasses.replace(backbone, encode=lambda x: 2 * backbone.encode(x))
    torch.testing.assert_close(doubled.features(images), 2 * backbone.features(images))
