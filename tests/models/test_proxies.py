"""Second networks: their grids, what they are loaded from, and the dense step with them."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from models.backbones.build import build_backbone
from models.backbones.registry import BACKBONES
from models.dense import Dense, DenseConfig
from models.networks import Networks
from models.protocols import Protocol
from models.proxies import Proxy, sam2_backbone
from models.upsamplers.base import Resize
from models.vocabulary import Vocabulary
from models.weight_files import WeightsNotFoundError

WORDS = Vocabulary.parse(["cat", "dog", "tree"])


@pytest.fixture(scope="module")
def networks(random_preset) -> Networks:
    # Few windows: SAM 2 sees each as its whole square.
    protocol = Protocol(name="few", logit_scale=40, short_side=32, window=32, stride=16)
    return Networks(dataclasses.replace(random_preset, protocol=protocol), "cpu")


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (60, 101, 3), np.uint8)


def test_sam2_sees_the_image_as_its_square(networks):
    model = networks.network("sam2")
    backbone = sam2_backbone(model)
    images = torch.rand(2, 3, 48, 80)
    found = backbone.encode_colours(images)
    side = model.image_size // 16
    assert found.shape == (2, backbone.dim, side, side)
    sam, whole = networks.own_sam(), (images[1] * 255).byte()
    sam.set_image(whole.permute(1, 2, 0).contiguous().numpy())
    embedding = sam._embedding
    if model.directly_add_no_mem_embed:
        embedding = embedding - model.no_mem_embed.view(1, -1, 1, 1)
    torch.testing.assert_close(backbone.encode_colours(whole[None] / 255), embedding)


def test_queries_and_keys_are_those_of_the_last_block(monkeypatch):
    row = BACKBONES["dino_vitb8_qk"]
    small = dataclasses.replace(row, network="timm:vit_tiny_patch16_224.augreg_in21k")
    monkeypatch.setitem(BACKBONES, "dino_vitb8_qk", small)
    backbone = build_backbone("dino_vitb8_qk", random_weights=True)
    images = torch.rand(1, 3, 32, 48)
    found = backbone.encode(images)
    assert found.shape == (1, 192, 2, 3)
    model = backbone.model
    before = []
    handle = model.blocks[-1].norm1.register_forward_hook(lambda *given: before.append(given[2]))
    backbone.encode(images)
    handle.remove()
    qkv = F.linear(before[0], model.blocks[-1].attn.qkv.weight, model.blocks[-1].attn.qkv.bias)
    expected = (qkv[..., :192] + qkv[..., 192:384])[:, 1:].transpose(1, 2).view(1, 192, 2, 3)
    torch.testing.assert_close(found, expected)
    assert not model.blocks[-1].attn.qkv._forward_hooks, "the hook is gone"


def test_images_are_enlarged_to_whole_patches_and_features_upsampled():
    backbone = build_backbone("dinov2_vits14", random_weights=True)
    images = torch.rand(2, 3, 28, 48)
    plain = Proxy(backbone=backbone, networks={}).features(images)
    assert plain.shape == (2, 384, 2, 4)  # 48 pixels are 3.4 patches
    large = Proxy(backbone=backbone, networks={}, scale=3, upsampler=Resize("bilinear"))
    torch.testing.assert_close(
        large.features(images), F.interpolate(plain, (6, 12), mode="bilinear")
    )


WAYS = [
    {"attention": "proxy"},
    {"attention": "proxy", "proxy_scale": 2, "proxy_upsampler": "guided"},
    {"attention": "proxy", "proxy": "tiny"},
    {"attention": "corr"},
    {"attention": "corr", "regions": "proxy"},
    {"attention": "csa", "map_correction": True},
    {"attention": "proxy", "whole_image": True},
]


def test_every_way_gives_a_map_of_its_own(networks, image):
    dense = Dense(networks, DenseConfig())
    plain = dense.dense(image, WORDS)
    seen = [plain.probs]
    for changes in WAYS:
        other = dense.with_config(**changes)
        found = other.dense(image, WORDS)
        assert found.probs.shape == (3, 60, 101) and np.isfinite(found.probs).all()
        if "map_correction" in changes:
            assert np.array_equal(found.probs, plain.probs)
            regions = other.regions(image)
            for number in np.unique(regions[regions >= 0]):
                assert len(np.unique(found.labels[regions == number])) == 1
            continue
        assert not any(np.allclose(found.probs, probs, atol=1e-6) for probs in seen), changes
        seen.append(found.probs)
        assert ("regions" in found.timings) == (changes["attention"] == "corr")


def test_regions_that_are_known_are_not_found_again(networks, image, monkeypatch):
    dense = Dense(networks, DenseConfig(attention="corr"))
    expected = dense.dense(image, WORDS)
    regions = dense.regions(image)
    monkeypatch.setattr(Dense, "regions", lambda *_: pytest.fail("found again"))
    again = dense.dense(dense.encode(image, regions=regions), WORDS)
    assert np.array_equal(again.probs, expected.probs)
    assert np.array_equal(again.labels, expected.labels)


def test_what_the_settings_use(networks):
    config = DenseConfig().resolved(networks.preset)
    assert not config.uses_sam2 and networks.used(config) == ("clip",)
    corr = config.changed(attention="corr").resolved(networks.preset)
    assert (corr.proxy, corr.map_correction) == ("sam2", True)
    assert networks.used(corr) == ("clip", "sam2")
    assert networks.fingerprints(corr).keys() == {"clip", "sam2"}
    assert config.encoding == config.changed(corr_merge=0.5, proxy_scale=2).encoding
    assert config.encoding == config.changed(map_correction=True).encoding
    assert corr.encoding != corr.changed(corr_merge=0.5).encoding
    assert corr.changed(attention="csa").resolved(networks.preset) == config
    proxy = config.changed(attention="proxy").resolved(networks.preset)
    other = proxy.changed(proxy_upsampler="jbu")
    assert proxy.encoding == other.encoding and "proxy_upsampler" in other.unused()
    assert proxy.changed(proxy_scale=2).encoding != other.changed(proxy_scale=2).encoding
    assert config.region_finding == () == proxy.region_finding
    assert corr.region_finding != corr.changed(precision="bfloat16").region_finding
    assert corr.region_finding == corr.changed(protocol="open", corr_merge=0).region_finding
    by_proxy = corr.changed(regions="proxy")  # which sees the image at the protocol's size
    assert by_proxy.region_finding != by_proxy.changed(protocol="sclip-cityscapes").region_finding
    with_tiny = config.changed(attention="proxy", proxy="tiny")
    assert networks.fingerprints(with_tiny).keys() == {"clip", "tiny"}


def test_what_cannot_be_is_refused(networks, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    dense = Dense(networks, DenseConfig())
    load = networks.load
    with pytest.raises(ValueError, match="unknown upsampler 'blur'"):
        dense.with_config(proxy_upsampler="blur")
    with pytest.raises(ValueError, match="proxy_scale must be between 1 and 16, got 0"):
        dense.with_config(proxy_scale=0)
    with pytest.raises(ValueError, match="unknown regions 'sam'; valid: sam2, proxy"):
        dense.with_config(regions="sam")
    with pytest.raises(ValueError, match="unknown backbone 'dinosaur'"):
        load(dense.with_config(attention="proxy", proxy="dinosaur").config)
    with pytest.raises(ValueError, match="no loftup is published for sam2 features"):
        load(dense.with_config(attention="proxy", proxy_upsampler="loftup", proxy_scale=8).config)
    with pytest.raises(WeightsNotFoundError, match=r"vit_base_patch8_224\.dino"):
        load(dense.with_config(attention="proxy", proxy="dino_vitb8").config)
