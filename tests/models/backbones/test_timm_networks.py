"""timm's networks: stages by stride, a ViT's tokens, and files that must fit."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from models.backbones.build import build_backbone
from models.backbones.positions import resize_positions
from models.backbones.registry import BACKBONES, BackboneRow
from models.weight_files import WeightsError

IMAGES = torch.randint(
    0, 256, (2, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)
IMAGENET = (0.485, 0.456, 0.406)


@pytest.fixture
def small_dinov2(monkeypatch) -> str:
    """A row like DINOv2's, of a small ViT."""
    monkeypatch.setitem(
        BACKBONES,
        "small",
        BackboneRow(meaning="a small one", network="timm:test_vit", positions="offset"),
    )
    return "small"


@pytest.mark.parametrize(
    ("spec", "stride", "stage"),
    [
        ("timm:test_efficientnet", 16, 3),
        ("timm:test_efficientnet@8", 8, 2),
        ("timm:test_efficientnet@32", 32, 4),
        ("timm:test_resnet", 16, 3),
        ("timm:test_resnet@4", 4, 1),
        ("timm:test_convnext@4", 4, 0),
        ("timm:test_byobnet@8", 8, 2),
    ],
)
def test_a_stage_of_a_convolutional_network(spec, stride, stage):
    backbone = build_backbone(spec, random_weights=True)
    features = backbone.features(IMAGES)
    assert backbone.patch == stride and backbone.text is None and not backbone.kind
    assert features.shape == (2, backbone.dim, 64 // stride, 96 // stride)
    module = backbone.model.feature_info[stage]["module"]
    seen = {}
    handle = backbone.model.get_submodule(module).register_forward_hook(
        lambda _, __, output: seen.update(output=output)
    )
    backbone.model.forward_features(backbone.normalise(IMAGES))
    handle.remove()
    torch.testing.assert_close(features, seen["output"])
    assert features.std() > 0 and not features.requires_grad


def test_what_has_no_such_grid_is_refused():
    for spec, message in (
        ("timm:test_resnet@7", "no stage of stride 7; it has timm:test_resnet@2, timm:test_resnet"),
        ("timm:test_resnet@half", "after @ must be a number"),
        ("timm:test_vit@8", "patches of 16 pixels, not 8: drop @8"),
        ("timm:mixer_s16_224", "does not take images of any size"),
        ("timm:test_nothing", "unknown timm model"),
    ):
        with pytest.raises(ValueError, match=message):
            build_backbone(spec, random_weights=True)
    assert build_backbone("timm:test_vit@16", random_weights=True).patch == 16


def test_a_file_of_a_convolutional_network_fits_strictly(tmp_path):
    model = timm.create_model("test_efficientnet", num_classes=7)  # its classifier goes
    file = tmp_path / "net.safetensors"
    save_file(model.state_dict(), file)
    backbone = build_backbone("timm:test_efficientnet", checkpoint=file)
    assert torch.equal(backbone.model.conv_stem.weight, model.conv_stem.weight)
    state = {k: v for k, v in model.state_dict().items() if k != "bn2.weight"}
    torch.save(state, tmp_path / "net.pt")  # also what the stage that is taken does not need
    with pytest.raises(WeightsError, match=r"1 missing \(bn2.weight\)"):
        build_backbone("timm:test_efficientnet", checkpoint=tmp_path / "net.pt")


def test_positions_as_dinov2_resizes_them(small_dinov2):
    ours = build_backbone(small_dinov2, random_weights=True)
    theirs = build_backbone("timm:test_vit", random_weights=True)
    assert ours.kind == "small" and ours.mean == pytest.approx(IMAGENET)
    images = ours.normalise(IMAGES)
    grid = resize_positions(theirs.model.pos_embed[0, 1:], (10, 10), (4, 6))
    first = theirs.model.pos_embed[:, :1]
    patches = theirs.model.patch_embed(images).flatten(1, 2)
    tokens = torch.cat([(theirs.model.cls_token + first).expand(2, -1, -1), patches + grid], 1)
    expected = theirs.model.norm(theirs.model.blocks(tokens))[:, 1:]
    torch.testing.assert_close(ours.encode(images), expected.transpose(1, 2).unflatten(2, (4, 6)))
    assert not torch.allclose(ours.encode(images), theirs.encode(images), atol=1e-4)
    square = torch.rand(1, 3, 160, 160)  # the trained grid: nothing to resize
    torch.testing.assert_close(ours.encode(square), theirs.encode(square))


def test_dinov2_files_with_and_without_the_mask_token(small_dinov2, tmp_path):
    wanted = build_backbone("timm:test_vit", random_weights=True).model.state_dict()
    half = {name: tensor.half() for name, tensor in wanted.items()}
    for name, state in (
        ("without.safetensors", half),
        ("with.safetensors", half | {"mask_token": torch.zeros(1, 64)}),
    ):
        save_file(state, tmp_path / name)
        loaded = build_backbone(small_dinov2, checkpoint=tmp_path / name).model.state_dict()
        assert loaded["pos_embed"].dtype == torch.float32
        assert all(torch.equal(loaded[key], half[key].float()) for key in wanted)
    for change, message in (
        ({"pos_embed": torch.zeros(1, 17, 64)}, "17 positions for 100 patches"),
        ({"extra_token": torch.zeros(1)}, r"1 unknown \(extra_token\)"),
    ):
        save_file(half | change, tmp_path / "bad.safetensors")
        with pytest.raises(WeightsError, match=message):
            build_backbone(small_dinov2, checkpoint=tmp_path / "bad.safetensors")


def test_dinov2_files_with_registers_under_their_own_names(tmp_path):
    spec = "dinov2_vits14_reg"
    model = build_backbone(spec, random_weights=True).model
    own = {name: tensor.half() for name, tensor in model.state_dict().items()}
    own["register_tokens"] = own.pop("reg_token")
    own["cls_token"] += 1
    own["pos_embed"] = torch.cat([torch.full((1, 1, 384), -1.0).half(), own["pos_embed"]], dim=1)
    save_file(own, tmp_path / "reg.safetensors")  # no mask token, as a file for inference
    loaded = build_backbone(spec, checkpoint=tmp_path / "reg.safetensors").model
    for name in ("reg_token", "cls_token", "pos_embed"):
        torch.testing.assert_close(
            getattr(loaded, name), getattr(model, name), atol=1e-3, rtol=1e-3
        )
