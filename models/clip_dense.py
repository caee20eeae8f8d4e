"""Dense CLIP features: one joint-space vector per image patch instead of one per image.

All variants run every transformer block but the last as usual and change only the last one:

- `vanilla`: the block as it is.
- `csa`: SCLIP's correlative self-attention (Wang et al., ECCV 2024, arXiv:2312.01597, eq. 3):
  a token attends to the tokens whose query, and to those whose key, resembles its own.
- `maskclip`: the values alone (Zhou et al., ECCV 2022, arXiv:2112.01071): no mixing between
  tokens, no residual, no MLP.

Shapes: B batch, H W image pixels, h w patch grid (H / patch, W / patch), T = 1 + h·w tokens with
the class token first, D transformer width, C joint width, n heads, d = D / n.
"""

import torch
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from .backbones.positions import resize_positions
from .dense_methods import get_method


def dense_features(
    clip: nn.Module, image: Tensor, attention: str = "csa", proxy: Tensor | None = None
) -> Tensor:
    """Patch features in CLIP's joint space, differentiable.

    Args:
        clip: an open_clip CLIP whose `visual` is open_clip's `VisionTransformer`.
        image: (B, 3, H, W), normalised with the model's mean and standard deviation; H and W
            multiples of the patch.
        attention: what the last block does, one of `models.dense_methods.METHODS`.
        proxy: (B, C', h', w') features of a second network, for methods that need them.

    Returns:
        (B, C, h, w), before any L2 normalisation.

    Raises:
        ValueError: on an unknown `attention`, an image of the wrong size, or another visual tower.
    """
    get_method(attention)
    visual = visual_tower(clip)
    height, width = patch_grid(visual, image)
    tokens = last_block(visual, forward_trunk(visual, image), attention, proxy)
    return to_grid(project(visual, tokens), height, width)


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
    """Tokens before the last block, (B, T, D), the same for every attention variant.

    Patch dropout is left out even in training mode: a dense map needs every patch.
    """
    height, width = patch_grid(visual, image)
    x = visual.conv1(image.to(visual.conv1.weight.dtype))  # (B, D, h, w)
    x = x.flatten(2).transpose(1, 2)  # (B, h·w, D)
    class_token = visual.class_embedding.to(x.dtype).expand(len(x), 1, -1)
    x = torch.cat([class_token, x], dim=1)  # (B, T, D)
    x = x + position_embedding(visual, height, width).to(x.dtype)
    x = visual.ln_pre(x)
    for block in visual.transformer.resblocks[:-1]:
        x = _run_block(visual, block, x)
    return x


def position_embedding(visual: VisionTransformer, height: int, width: int) -> Tensor:
    """Position embeddings (1 + height·width, D) for any grid; unchanged on the trained one."""
    trained = visual.positional_embedding
    rows, columns = visual.grid_size
    resized = resize_positions(trained[1:], (rows, columns), (height, width))
    return torch.cat([trained[:1], resized])


def last_block(
    visual: VisionTransformer, tokens: Tensor, attention: str = "csa", proxy: Tensor | None = None
) -> Tensor:
    """Run the last block on the trunk's tokens (B, T, D); returns (B, T, D).

    The first token of the result is the class token; only "vanilla" gives it its usual meaning.
    """
    return get_method(attention).load()(visual, tokens, proxy)


def vanilla(visual: VisionTransformer, tokens: Tensor, proxy: Tensor | None = None) -> Tensor:
    """The last block as it is."""
    return _run_block(visual, _last(visual), tokens)


def maskclip(visual: VisionTransformer, tokens: Tensor, proxy: Tensor | None = None) -> Tensor:
    """The values alone."""
    block = _last(visual)
    weight, bias = block.attn.in_proj_weight.chunk(3)[2], block.attn.in_proj_bias.chunk(3)[2]
    return block.ls_1(block.attn.out_proj(F.linear(block.ln_1(tokens), weight, bias)))


def csa(visual: VisionTransformer, tokens: Tensor, proxy: Tensor | None = None) -> Tensor:
    """Correlative self-attention (SCLIP, eq. 3)."""
    block = _last(visual)
    attn = block.attn
    qkv = F.linear(block.ln_1(tokens), attn.in_proj_weight, attn.in_proj_bias)  # (B, T, 3·D)
    q, k, v = qkv.unflatten(2, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)  # 3 × (B, n, T, d)
    # (softmax(qqᵀ) + softmax(kkᵀ)) v: the sum of the two attentions, not their mean.
    mixed = F.scaled_dot_product_attention(q, q, v) + F.scaled_dot_product_attention(k, k, v)
    x = tokens + block.ls_1(attn.out_proj(mixed.transpose(1, 2).flatten(2)))
    return x + block.ls_2(block.mlp(block.ln_2(x)))


def project(visual: VisionTransformer, tokens: Tensor) -> Tensor:
    """Final LayerNorm and projection into the joint space: (B, T, D) -> (B, T, C)."""
    tokens = visual.ln_post(tokens)
    return tokens if visual.proj is None else tokens @ visual.proj


def to_grid(tokens: Tensor, height: int, width: int) -> Tensor:
    """Drop the class token and restore the grid: (B, 1 + h·w, C) -> (B, C, h, w)."""
    return tokens[:, 1:].transpose(1, 2).unflatten(2, (height, width))


def _last(visual: VisionTransformer) -> ResidualAttentionBlock:
    return visual.transformer.resblocks[-1]  # type: ignore[return-value]  # a ModuleList


def _run_block(visual: VisionTransformer, block: nn.Module, tokens: Tensor) -> Tensor:
    if visual.transformer.batch_first:
        return block(tokens)
    return block(tokens.transpose(0, 1)).transpose(0, 1)
