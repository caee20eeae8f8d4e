"""LoftUp's modules, the plain computation, which learns. Names follow the official checkpoints.

Shapes: B batch, C feature channels, h w low-resolution grid, H W image pixels, D = C + 20 working
width, n heads, d = D / n, N queries.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .guide import FourierFeatures, Window, coordinates
from .heads import HEADS as LAST_LAYERS

GUIDE_SIGNALS, GUIDE_FREQUENCIES = 5, 20  # row, column, r, g, b
GRID_SIGNALS, GRID_FREQUENCIES = 2, 5  # row, column
GUIDE_CHANNELS = 2 * GUIDE_SIGNALS * GUIDE_FREQUENCIES + 3
GRID_CHANNELS = 2 * GRID_SIGNALS * GRID_FREQUENCIES
HEADS = 4
LAYERS = 2

Kind = TypeVar("Kind", bound=nn.Module)


def only(kind: type[Kind], modules: Iterable[nn.Module]) -> list[Kind]:
    """Those of one kind, in their order."""
    return [module for module in modules if isinstance(module, kind)]


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of (B, C, H, W), at every location."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = ChannelLayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


class ChannelLayerNorm(nn.LayerNorm):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


def _grid(height: int, width: int) -> Tensor:
    """Row and column positions of all pixels, (2, H, W) float32."""
    return torch.stack(torch.meshgrid(*coordinates(height, width), indexing="ij"))


class Upsampler(nn.Module):
    """Queries from the guide, context from the features, cross-attention, output projection."""

    def __init__(self, dim: int, head: str = "projection") -> None:
        super().__init__()
        width = dim + GRID_CHANNELS
        # Index 0 is the colour scaling, which has no parameters and is done once per image.
        self.fourier_feat = nn.Sequential(
            nn.Identity(), FourierFeatures(GUIDE_SIGNALS, GUIDE_FREQUENCIES)
        )
        self.first_conv = nn.Sequential(
            ChannelNorm(GUIDE_CHANNELS),
            nn.Conv2d(GUIDE_CHANNELS, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        self.lr_pe = FourierFeatures(GRID_SIGNALS, GRID_FREQUENCIES)
        self.ca_transformer = CrossAttentionTransformer(width, dim)
        if head == "projection":  # the published one
            self.head = None
            self.final_conv = nn.Sequential(
                nn.Conv2d(width, dim, 1), ChannelLayerNorm(dim, eps=1e-6)
            )
        else:
            self.head = LAST_LAYERS[head](width, dim)

    @property
    def dtype(self) -> torch.dtype:
        return next(self.ca_transformer.parameters()).dtype

    def forward(self, features: Tensor, scaled: Tensor) -> Tensor:
        """Channel-normalised features (B, C, h, w), scaled colours (B, 3, H, W) -> (B, C, H, W)."""
        window = Window(0, 0, *scaled.shape[2:])
        guide = self.encode_guide(scaled, window)
        queries = self.first_conv(guide.to(self.dtype))
        x = queries.flatten(2).transpose(1, 2)  # (B, N, D)
        x = self.ca_transformer(x, self.ca_transformer.keys_values(self.encode_context(features)))
        return self.finish(x, features, scaled.shape[2:], [window] * len(x))

    def finish(
        self, x: Tensor, features: Tensor, size: Sequence[int], windows: Sequence[Window]
    ) -> Tensor:
        """The last layer: (B, N, D) queries of equal windows, with the features of each window's
        image, which is of `size`: (B, C, height, width)."""
        if self.head is not None:
            return self.head(x, features, (size[0], size[1]), windows)
        shape = windows[0].height, windows[0].width
        return self.final_conv(x.transpose(1, 2).unflatten(2, shape))

    def encode_guide(self, scaled: Tensor, window: Window) -> Tensor:
        """Guide encoding (B, 203, height, width) float32 of a window, whatever autocast says."""
        rows = slice(window.top, window.top + window.height)
        columns = slice(window.left, window.left + window.width)
        with torch.autocast(scaled.device.type, enabled=False):
            colours = scaled[:, :, rows, columns]
            where = _grid(*scaled.shape[2:]).to(scaled.device)[:, rows, columns]
            signals = torch.cat([where.expand(len(scaled), -1, -1, -1), colours], dim=1)
            return torch.cat([self.fourier_feat(signals), colours], dim=1)

    def encode_context(self, features: Tensor) -> Tensor:
        """Channel-normalised features (B, C, h, w) with their positions: (B, h·w, D)."""
        with torch.autocast(features.device.type, enabled=False):
            where = self.lr_pe(_grid(*features.shape[2:])[None].to(features.device))
        where = where.to(features.dtype).expand(len(features), -1, -1, -1)
        return torch.cat([features, where], dim=1).flatten(2).transpose(1, 2)


class CrossAttentionTransformer(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleList([CrossAttention(width), FeedForward(width, hidden)])
            for _ in range(LAYERS)
        )
        self.norm = nn.LayerNorm(width)

    def keys_values(self, context: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Every layer's keys and values, the same for all queries."""
        return [attention.keys_values(context) for attention, _ in self.pairs()]

    def pairs(self) -> list[tuple[CrossAttention, FeedForward]]:
        """The layers."""
        attentions = only(CrossAttention, self.modules())
        return list(zip(attentions, only(FeedForward, self.modules()), strict=True))

    def forward(self, x: Tensor, keys_values: list[tuple[Tensor, Tensor]]) -> Tensor:
        layers = zip(self.pairs(), keys_values, strict=True)
        for (attention, feed_forward), (keys, values) in layers:
            x = x + attention(x, keys, values)
            x = x + feed_forward(x)
        return self.norm(x)


class CrossAttention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_q = nn.LayerNorm(width)
        self.norm_kv = nn.LayerNorm(width)
        # Holds the parameters; its forward would project keys and values anew for every strip.
        self.attention = nn.MultiheadAttention(width, HEADS, batch_first=True)

    def keys_values(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """(B, h·w, D) -> keys and values (B, n, h·w, d), d padded."""
        context = self.norm_kv(context)
        return self._project(context, 1), self._project(context, 2)

    def forward(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        queries = self._project(self.norm_q(x), 0)
        head = x.shape[2] // HEADS
        mixed = F.scaled_dot_product_attention(queries, keys, values, scale=head**-0.5)
        mixed = mixed[..., :head].transpose(1, 2).flatten(2)  # (B, N, D)
        return self.attention.out_proj(mixed)

    def _project(self, x: Tensor, part: int) -> Tensor:
        weight = self.attention.in_proj_weight.chunk(3)[part]
        bias = self.attention.in_proj_bias.chunk(3)[part]
        x = F.linear(x, weight, bias).unflatten(2, (HEADS, -1)).transpose(1, 2)  # (B, n, N, d)
        # d = 133 for CLIP: zeros up to a multiple of 8 change nothing and allow the attention
        # kernels that do not store the whole matrix.
        return F.pad(x, (0, -x.shape[3] % 8))


class FeedForward(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        # Index 3 is a dropout in the published training code.
        self.net = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Identity(),
            nn.Linear(hidden, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)
