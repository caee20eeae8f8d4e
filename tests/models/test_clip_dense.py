"""Dense CLIP features against reference values and against open_clip itself."""

import open_clip
import pytest
import torch
from torch import nn

from models import clip_dense
from models.clip_dense import dense_features
from tests.golden import load, max_error, tiny_clip, weights

GOLDEN = load("sclip")


@pytest.fixture(scope="module")
def clip() -> open_clip.CLIP:
    return tiny_clip(weights(GOLDEN))


@pytest.mark.parametrize("case", ["case0", "case1"])
@pytest.mark.parametrize("attention", ["csa", "vanilla", "maskclip"])
@torch.no_grad()
def test_matches_reference(clip, case, attention):
    features = dense_features(clip, GOLDEN[f"{case}.image"], attention)
    assert max_error(features, GOLDEN[f"{case}.{attention}"]) < 1e-5


@torch.no_grad()
def test_vanilla_equals_open_clip_on_the_trained_grid(clip):
    image = GOLDEN["case0.image"]
    clip.visual.output_tokens = True
    try:
        pooled, tokens = clip.visual(image)
    finally:
        clip.visual.output_tokens = False
    expected = (tokens @ clip.visual.proj).transpose(1, 2).reshape(1, 48, 4, 4)
    assert max_error(dense_features(clip, image, "vanilla"), expected) < 1e-5

    trunk = clip_dense.forward_trunk(clip.visual, image)
    last = clip_dense.last_block(clip.visual, trunk, "vanilla")
    assert max_error(clip_dense.project(clip.visual, last)[:, 0], pooled) < 1e-5


@torch.no_grad()
def test_layout_is_rows_then_columns(clip):
    """Without attention, changing one patch of the image changes its own cell most."""
    image = torch.zeros(1, 3, 80, 112)
    changed = image.clone()
    changed[:, :, 48:64, 80:96] = 3.0  # row 3, column 5
    moved = dense_features(clip, changed, "maskclip") - dense_features(clip, image, "maskclip")
    assert moved[0].norm(dim=0).argmax().item() == 3 * 7 + 5


@torch.no_grad()
def test_batch_equals_singles(clip):
    images = torch.randn(3, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    singles = torch.cat([dense_features(clip, image[None]) for image in images])
    assert max_error(dense_features(clip, images), singles) < 1e-5


@pytest.mark.parametrize("attention", ["csa", "vanilla", "maskclip"])
def test_gradients_reach_the_first_layer(attention):
    clip = tiny_clip(weights(GOLDEN)).train()
    dense_features(clip, GOLDEN["case1.image"], attention).square().mean().backward()
    assert clip.visual.conv1.weight.grad.abs().sum() > 0
    assert clip.visual.positional_embedding.grad.abs().sum() > 0


def test_patch_dropout_does_not_drop_patches():
    clip = tiny_clip(patch_dropout=0.5).train()
    assert dense_features(clip, GOLDEN["case1.image"]).shape == (1, 48, 5, 7)


@torch.no_grad()
def test_layer_scale_and_missing_ln_pre():
    clip = tiny_clip(ls_init_value=0.1, no_ln_pre=True)
    clip.visual.output_tokens = True
    expected = clip.visual(GOLDEN["case0.image"])[1] @ clip.visual.proj
    features = dense_features(clip, GOLDEN["case0.image"], "vanilla")
    assert max_error(features.flatten(2).transpose(1, 2), expected) < 1e-5


def test_unknown_attention_lists_the_valid_ones(clip):
    with pytest.raises(ValueError, match="'clipper'; valid: csa, vanilla, maskclip"):
        dense_features(clip, GOLDEN["case0.image"], "clipper")


@pytest.mark.parametrize("shape", [(1, 3, 64, 65), (1, 3, 60, 64), (1, 3, 0, 64)])
def test_sizes_off_the_patch_grid_are_refused(clip, shape):
    with pytest.raises(ValueError, match="multiples of the patch 16x16"):
        dense_features(clip, torch.zeros(shape))


def test_other_visual_towers_are_refused(clip):
    resnet = nn.Module()
    resnet.visual = nn.Conv2d(3, 4, 1)
    with pytest.raises(ValueError, match="VisionTransformer, got Module with Conv2d"):
        dense_features(resnet, GOLDEN["case0.image"])
    with pytest.raises(ValueError, match="attentional pooling"):
        dense_features(tiny_clip(attentional_pool=True), GOLDEN["case0.image"])
    with pytest.raises(ValueError, match="got Attention"):
        dense_features(tiny_clip(qk_norm=True), GOLDEN["case0.image"])
