"""The peers' dense methods against reference values, and strips against the plain computation."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models import proxy_attention
from models.clip_dense import dense_features, neighbourhood, trunk_states
from models.corr import corr_logits, merge_regions
from models.dense_methods.settings import MethodSettings
from models.proxy_attention import attend, mean_similarity, proxy_logits, unit_cells
from tests.golden import load, max_error, tiny_clip, weights

GOLDEN = load("dense_methods")
OUTPUTS = {"naclip": "naclip", "clearclip": "clearclip", "proxy": "proxy_output",
           "corr": "corr_output"}  # fmt: skip


@pytest.fixture(scope="module")
def clip():
    """Six layers, whose earlier ones the spatial branch needs."""
    return tiny_clip(
        weights(GOLDEN), embed=32, text_width=32, layers=6, width=64, head_width=32
    ).requires_grad_(False)


@pytest.fixture(scope="module")
def sclip_clip():
    return tiny_clip(weights(load("sclip"))).requires_grad_(False)


@pytest.mark.parametrize("case", ["case0", "case1"])
@pytest.mark.parametrize("attention", OUTPUTS)
def test_matches_reference(clip, case, attention):
    image, proxy, regions = (GOLDEN[f"{case}.{name}"] for name in ("image", "proxy", "regions"))
    found = dense_features(clip, image, attention, proxy, regions)
    assert max_error(found, GOLDEN[f"{case}.{OUTPUTS[attention]}"]) < 1e-5


@pytest.mark.parametrize("case", ["case0", "case1", "case2"])
def test_other_grids_of_the_proxy_match_reference(sclip_clip, case):
    golden = load("proxyclip")
    found = dense_features(sclip_clip, golden[f"{case}.image"], "proxy", golden[f"{case}.proxy"])
    assert max_error(found, golden[f"{case}.output"]) < 1e-5


@pytest.mark.parametrize("attention", ["naclip", "clearclip"])
@pytest.mark.parametrize("case", ["case0", "case1"])
def test_last_blocks_match_reference(sclip_clip, case, attention):
    golden = load("clip_variants")
    found = dense_features(sclip_clip, golden[f"{case}.image"], attention)
    assert max_error(found, golden[f"{case}.{attention}"]) < 1e-5


def test_the_neighbourhood_matches_reference():
    expected = load("clip_variants")["case1.gaussian"]
    assert max_error(neighbourhood((5, 7), 5.0), expected) < 1e-6


def plain_attention(values: Tensor, size: tuple[int, int], logits: Tensor) -> Tensor:
    """All n² weights at once, of values enlarged to the proxy's grid."""
    large = F.interpolate(values[None], size, mode="bilinear")[0].flatten(1).T
    return logits.softmax(1) @ large


@pytest.mark.parametrize("rows", [1, 5, 100])
def test_strips_are_the_plain_computation(monkeypatch, rows):
    """Whatever the strip: one row, some and a rest, all."""
    generator = torch.Generator().manual_seed(1)
    cells = unit_cells(torch.randn(1, 6, 7, 9, generator=generator) + 0.5)[0]
    values = torch.randn(10, 4, 5, generator=generator)
    regions = torch.randint(-1, 3, (63,), generator=generator)
    similarity = cells @ cells.T
    shifted = 3 * (similarity - 1.2 * similarity.mean())
    loose = (regions[:, None] < 0) | (regions < 0)
    allowed = torch.where(loose, similarity > similarity.mean(), regions[:, None] == regions)
    monkeypatch.setattr(proxy_attention, "_STRIP_ELEMENTS", rows * 63)
    for logits, plain in (
        (proxy_logits(cells), shifted.masked_fill(shifted < 0, -torch.inf)),
        (corr_logits(cells, cells, regions), (4 * similarity).masked_fill(~allowed, -torch.inf)),
        (corr_logits(cells, cells, None), 4 * similarity),
    ):
        strips = list(attend(values, (7, 9), logits))
        assert len(strips) == -(-63 // rows)
        assert max_error(torch.cat(strips), plain_attention(values, (7, 9), plain)) < 1e-5


def test_cells_that_are_all_alike_attend_to_themselves():
    """The mean similarity is 1: every cell is below 1.2 of it."""
    cells = torch.ones(6, 4) / 2
    assert mean_similarity(cells) == pytest.approx(1)
    values = torch.arange(6.0).view(1, 2, 3)
    for logits in (proxy_logits(cells), corr_logits(cells, cells, torch.full((6,), -1))):
        assert (
            max_error(torch.cat(list(attend(values, (2, 3), logits))).T, values.flatten(1)) < 1e-6
        )


def test_alike_regions_are_joined_in_chains():
    """By hand: cosines 1, 0.96 and 0.84 within the chain; the fourth is at right angles."""
    angles = torch.tensor([0.0, 0.284, 0.568, 1.571 + 0.284])
    cells = torch.stack([angles.cos(), angles.sin()], 1)[[0, 0, 1, 2, 3, 3, 0]]
    regions = torch.tensor([7, 7, 2, 5, 9, 9, -1])
    assert merge_regions(cells, regions, 0.1).tolist() == [0, 0, 0, 0, 1, 1, -1]
    assert merge_regions(cells, regions, 0.01).tolist() == [2, 2, 0, 1, 3, 3, -1]
    assert merge_regions(cells, regions, 0).tolist() == [2, 2, 0, 1, 3, 3, -1]
    # Two ids are no chain, the unsegmented part being one of them.
    assert merge_regions(cells[:2], torch.tensor([3, -1]), 0.2).tolist() == [0, -1]
    assert merge_regions(cells[:2], torch.tensor([-1, -1]), 0.2).tolist() == [-1, -1]


@pytest.mark.parametrize(
    "changes",
    [{"corr_scope": False}, {"corr_value": False}, {"corr_merge": 0.0}, {"corr_spatial": 0.0},
     {"corr_semantic": 0.0}],
    ids=str,
)  # fmt: skip
def test_every_step_of_corr_can_be_switched_off(clip, changes):
    inputs = (GOLDEN[f"case0.{name}"] for name in ("image", "proxy", "regions"))
    image, proxy, regions = inputs
    whole = dense_features(clip, image, "corr", proxy, regions)
    settings = MethodSettings(attention="corr", **changes)
    part = dense_features(clip, image, None, proxy, regions, settings=settings)
    assert max_error(whole, part) > 1e-2 and part.isfinite().all()


def test_corr_without_its_branches_is_values_in_regions(clip):
    """By definition: softmax(4·S) of the cells in the same region, values, out_proj."""
    image, proxy = GOLDEN["case1.image"], GOLDEN["case1.proxy"]
    regions = (torch.arange(10)[:, None] // 5 * 2 + torch.arange(14) // 7)[None]
    settings = MethodSettings(attention="corr", corr_merge=0, corr_spatial=0, corr_semantic=0)
    found = dense_features(clip, image, None, proxy, regions, settings=settings)
    visual, cells, ids = clip.visual, unit_cells(proxy)[0], regions.flatten()
    block = visual.transformer.resblocks[-1]
    *_, tokens = trunk_states(visual, image)
    weight, bias = block.attn.in_proj_weight[-64:], block.attn.in_proj_bias[-64:]
    values = F.linear(block.ln_1(tokens), weight, bias)[0, 1:].T.view(64, 5, 7)
    logits = (4 * cells @ cells.T).masked_fill(ids[:, None] != ids, -torch.inf)
    mixed = block.attn.out_proj(plain_attention(values, (10, 14), logits))
    expected = (visual.ln_post(mixed) @ visual.proj).T.view(1, 32, 10, 14)
    assert max_error(found, expected) < 1e-4


def test_a_batch_is_its_images(clip):
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(2, 3, 48, 80, generator=generator)
    proxy = torch.randn(2, 8, 6, 7, generator=generator)
    regions = torch.randint(-1, 4, (2, 6, 7), generator=generator)
    for attention in OUTPUTS:
        given = [(images, proxy, regions), *zip(*(x.split(1) for x in (images, proxy, regions)))]  # noqa: B905
        whole, *single = (dense_features(clip, i, attention, p, r) for i, p, r in given)
        assert max_error(whole, torch.cat(single)) < 1e-5


def test_gradients_reach_the_first_layer():
    trained = tiny_clip(
        weights(GOLDEN), embed=32, text_width=32, layers=6, width=64, head_width=32
    ).train()
    for attention in OUTPUTS:
        trained.zero_grad()
        inputs = (GOLDEN[f"case1.{name}"] for name in ("image", "proxy", "regions"))
        image, proxy, regions = inputs
        dense_features(trained, image, attention, proxy, regions).square().mean().backward()
        assert trained.visual.conv1.weight.grad.abs().sum() > 0, attention


def test_what_is_missing_or_does_not_fit_is_refused(clip):
    image, proxy = GOLDEN["case0.image"], GOLDEN["case0.proxy"]
    with pytest.raises(ValueError, match="proxy needs proxy"):
        dense_features(clip, image, "proxy")
    with pytest.raises(ValueError, match="corr needs regions"):
        dense_features(clip, image, "corr", proxy)
    with pytest.raises(ValueError, match=r"proxy must be \(1, C', h', w'\), got \(12, 8, 8\)"):
        dense_features(clip, image, "proxy", proxy[0])
    with pytest.raises(ValueError, match=r"integers on the proxy's grid, \(1, 8, 8\)"):
        dense_features(clip, image, "corr", proxy, torch.zeros(1, 8, 7, dtype=torch.long))
    with pytest.raises(ValueError, match=r"got torch\.float32"):
        dense_features(clip, image, "corr", proxy, torch.zeros(1, 8, 8))
