"""Dense CLIP features: one joint-space vector per image patch instead of one per image.

All variants run every transformer block but the last as usual and change only the last one:

- `vanilla`: the block as it is.
- `csa`: SCLIP's correlative self-attention (Wang et al., ECCV 2024, arXiv:2312.01597, eq. 3):
  a token attends to the tokens whose query, and to those whose key, resembles its own.
- `maskclip`: the values alone (Zhou et al., ECCV 2022, arXiv:2112.01071): no mixing between
  tokens, no residual, no MLP.
- `naclip`: a token attends to those whose key resembles its own, near ones before far ones
  (Hajimiri et al., WACV 2025, arXiv:2404.08181); no residual, no MLP.
- `clearclip`: likewise by queries, wherever they are (Lan et al., ECCV 2024, arXiv:2407.12442).

Those with a second network, on its grid: `models.proxy_attention`, `models.corr`.

Shapes: B batch, H W image pixels, h w patch grid (H / patch, W / patch), T = 1 + h·w tokens with
the class token first, D transformer width, C joint width, n heads, d = D / n.
"""

from collections.abc import Iterator

import torch
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from .backbones.positions import resize_positions
from .dense_methods import get_method
from .dense_methods.settings import Given, MethodSettings

_NEIGHBOURHOOD = 5.0  # patches, the standard deviation of NACLIP's Gaussian


def dense_features(
    clip: nn.Module,
    image: Tensor,
    attention: str | None = None,
    proxy: Tensor | None = None,
    regions: Tensor | None = None,
    *,
    settings: MethodSettings = MethodSettings(),  # noqa: B008 (frozen)
) -> Tensor:
    """Patch features in CLIP's joint space, differentiable.

    Args:
        clip: an open_clip CLIP whose `visual` is open_clip's `VisionTransformer`.
        image: (B, 3, H, W), normalised with the model's mean and standard deviation; H and W
            multiples of the patch.
        attention: the method, one of `models.dense_methods.METHODS`; None takes the settings'.
        proxy: (B, C', h', w') features of a second network, for methods that need them.
        regions: (B, h', w') int64 on the same grid, −1 where there is none, likewise.
        settings: of the method.

    Returns:
        (B, C, h, w), or on the proxy's grid (B, C, h', w'), before any L2 normalisation.

    Raises:
        ValueError: on an unknown `attention`, an image of the wrong size, another visual tower, or
            a proxy or regions that are missing or do not fit.
    """
    row = get_method(attention or settings.attention)
    visual = visual_tower(clip)
    grid = patch_grid(visual, image)
    _check_given(attention or settings.attention, len(image), proxy, regions)
    given = Given(grid=grid, proxy=proxy, regions=regions, settings=settings)
    if row.features:
        return row.load()(visual, list(trunk_states(visual, image)), given)
    tokens = row.load()(visual, forward_trunk(visual, image), given)
    return to_grid(project(visual, tokens), *grid)


def _check_given(name: str, count: int, proxy: Tensor | None, regions: Tensor | None) -> None:
    row = get_method(name)
    for needed, what, value in ((row.proxy, "proxy", proxy), (row.regions, "regions", regions)):
        if needed and value is None:
            raise ValueError(f"{name} needs {what}: give them to dense_features")
    if proxy is not None and (proxy.ndim != 4 or len(proxy) != count):
        raise ValueError(f"proxy must be ({count}, C', h', w'), got {tuple(proxy.shape)}")
    if proxy is not None and regions is not None and row.regions:
        expected = (count, *proxy.shape[2:])
        if tuple(regions.shape) != expected or regions.is_floating_point():
            raise ValueError(
                f"regions must be integers on the proxy's grid, {expected}, got {regions.dtype} "
                f"{tuple(regions.shape)}"
            )


def visual_tower(clip: nn.Module) -> VisionTransformer:
    """The visual tower of `clip`, checked to be one that `dense_features` can run."""
    visual = getattr(clip, "visual", None)
    if not isinstance(visual, VisionTransformer):
        raise ValueError(
            f"dense features need an open_clip CLIP whose visual tower is a VisionTransformer, "
            f"got {type(clip).__name__} with {type(visual).__name__}; use for example ViT-B-16"
        )
    if visual.attn_pool is not None:
        raise ValueError(
            "dense features need a visual tower that projects its tokens directly, "
            "got one with attentional pooling (CoCa); use for example ViT-B-16"
        )
    if not isinstance(visual.transformer.resblocks[-1].attn, nn.MultiheadAttention):
        raise ValueError(
            "dense features need blocks with torch.nn.MultiheadAttention, got "
            f"{type(visual.transformer.resblocks[-1].attn).__name__}; use for example ViT-B-16"
        )
    return visual


def patch_grid(visual: VisionTransformer, image: Tensor) -> tuple[int, int]:
    """(h, w) of the patch grid of `image` (B, 3, H, W)."""
    if image.ndim != 4 or image.shape[1] != 3:
        raise ValueError(f"image must have shape (B, 3, H, W), got {tuple(image.shape)}")
    (height, width), (patch_h, patch_w) = image.shape[2:], visual.patch_size
    if height % patch_h or width % patch_w or not height or not width:
        raise ValueError(
            f"image height and width must be multiples of the patch {patch_h}x{patch_w}, got "
            f"{height}x{width}; resize or pad the image first"
        )
    return height // patch_h, width // patch_w


def forward_trunk(visual: VisionTransformer, image: Tensor) -> Tensor:
    """Tokens before the last block, (B, T, D), the same for every attention variant."""
    tokens = None
    for state in trunk_states(visual, image):
        tokens = state
    assert tokens is not None, "a transformer has blocks"
    return tokens


def trunk_states(visual: VisionTransformer, image: Tensor) -> Iterator[Tensor]:
    """Tokens before each block, (B, T, D), those before the last one last.

    Patch dropout is left out even in training mode: a dense map needs every patch.
    """
    height, width = patch_grid(visual, image)
    x = visual.conv1(image.to(visual.conv1.weight.dtype))  # (B, D, h, w)
    x = x.flatten(2).transpose(1, 2)  # (B, h·w, D)
    class_token = visual.class_embedding.to(x.dtype).expand(len(x), 1, -1)
    x = torch.cat([class_token, x], dim=1)  # (B, T, D)
    x = x + position_embedding(visual, height, width).to(x.dtype)
    x = visual.ln_pre(x)
    yield x
    for block in visual.transformer.resblocks[:-1]:
        x = _run_block(visual, block, x)
        yield x


def position_embedding(visual: VisionTransformer, height: int, width: int) -> Tensor:
    """Position embeddings (1 + height·width, D) for any grid; unchanged on the trained one."""
    trained = visual.positional_embedding
    rows, columns = visual.grid_size
    resized = resize_positions(trained[1:], (rows, columns), (height, width))
    return torch.cat([trained[:1], resized])


def last_block(
    visual: VisionTransformer,
    tokens: Tensor,
    attention: str = "csa",
    given: Given | None = None,
) -> Tensor:
    """Run the last block on the trunk's tokens (B, T, D); returns (B, T, D).

    The first token of the result is the class token; only "vanilla" gives it its usual meaning.
    `given` is for methods that need more than tokens.
    """
    return get_method(attention).load()(visual, tokens, given)


def vanilla(visual: VisionTransformer, tokens: Tensor, given: Given | None = None) -> Tensor:
    """The last block as it is."""
    return _run_block(visual, last(visual), tokens)


def maskclip(visual: VisionTransformer, tokens: Tensor, given: Given | None = None) -> Tensor:
    """The values alone."""
    block = last(visual)
    return block.ls_1(head_values(block, tokens) + block.attn.out_proj.bias)


def csa(visual: VisionTransformer, tokens: Tensor, given: Given | None = None) -> Tensor:
    """Correlative self-attention (SCLIP, eq. 3)."""
    block = last(visual)
    q, k, v = queries_keys_values(block, tokens)
    # (softmax(qqᵀ) + softmax(kkᵀ)) v: the sum of the two attentions, not their mean.
    mixed = F.scaled_dot_product_attention(q, q, v) + F.scaled_dot_product_attention(k, k, v)
    x = tokens + block.ls_1(block.attn.out_proj(mixed.transpose(1, 2).flatten(2)))
    return x + block.ls_2(block.mlp(block.ln_2(x)))


def naclip(visual: VisionTransformer, tokens: Tensor, given: Given) -> Tensor:
    """Neighbour-aware attention of keys with keys (NACLIP, eq. 4 and 5)."""
    _, k, v = queries_keys_values(last(visual), tokens)
    nearness = neighbourhood(given.grid, _NEIGHBOURHOOD).to(k)
    mixed = F.scaled_dot_product_attention(k, k, v, attn_mask=nearness)
    return _attention_alone(last(visual), mixed)


def clearclip(visual: VisionTransformer, tokens: Tensor, given: Given | None = None) -> Tensor:
    """Attention of queries with queries, neither residual nor MLP (ClearCLIP, eq. 7)."""
    q, _, v = queries_keys_values(last(visual), tokens)
    return _attention_alone(last(visual), F.scaled_dot_product_attention(q, q, v))


def neighbourhood(grid: tuple[int, int], deviation: float) -> Tensor:
    """exp(−d² / 2σ²) of patches at grid distance d, (T, T); 0 where the class token is one."""
    rows, columns = (torch.arange(side, dtype=torch.float32) for side in grid)
    y, x = (torch.exp(-((a[:, None] - a) ** 2) / (2 * deviation**2)) for a in (rows, columns))
    return F.pad(torch.kron(y, x), (1, 0, 1, 0))


def _attention_alone(block: ResidualAttentionBlock, mixed: Tensor) -> Tensor:
    """(B, n, T, d) -> (B, T, D) without residual and MLP."""
    return block.ls_1(block.attn.out_proj(mixed.transpose(1, 2).flatten(2)))


def queries_keys_values(block: ResidualAttentionBlock, tokens: Tensor) -> tuple[Tensor, ...]:
    """Of a block for tokens (B, T, D): three of (B, n, T, d)."""
    attn = block.attn
    qkv = F.linear(block.ln_1(tokens), attn.in_proj_weight, attn.in_proj_bias)  # (B, T, 3·D)
    return qkv.unflatten(2, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def head_values(block: ResidualAttentionBlock, tokens: Tensor) -> Tensor:
    """Values (B, T, D) of tokens (B, T, D), through `out_proj` but for its bias.

    Weights that are the same for all heads and add up to 1 may mix them afterwards.
    """
    attn = block.attn
    weight, bias = attn.in_proj_weight.chunk(3)[2], attn.in_proj_bias.chunk(3)[2]
    return F.linear(F.linear(block.ln_1(tokens), weight, bias), attn.out_proj.weight)


def project(visual: VisionTransformer, tokens: Tensor) -> Tensor:
    """Final LayerNorm and projection into the joint space: (B, T, D) -> (B, T, C)."""
    tokens = visual.ln_post(tokens)
    return tokens if visual.proj is None else tokens @ visual.proj


def to_grid(tokens: Tensor, height: int, width: int) -> Tensor:
    """Drop the class token and restore the grid: (B, 1 + h·w, C) -> (B, C, h, w)."""
    return tokens[:, 1:].transpose(1, 2).unflatten(2, (height, width))


def last(visual: VisionTransformer) -> ResidualAttentionBlock:
    """The last block."""
    return visual.transformer.resblocks[-1]  # type: ignore[return-value]  # a ModuleList


def _run_block(visual: VisionTransformer, block: nn.Module, tokens: Tensor) -> Tensor:
    if visual.transformer.batch_first:
        return block(tokens)
    return block(tokens.transpose(0, 1)).transpose(0, 1)
