"""LoftUp: features of a backbone, upsampled to the pixels of the image that guides them.

Huang et al., "LoftUp: Learning a Coordinate-Based Feature Upsampler for Vision Foundation
Models", ICCV 2025, arXiv:2504.14032. Every pixel is a query built from its position and colour;
the queries read the low-resolution features through two cross-attention layers. Module names
follow the official checkpoints, which load strictly. The modules here are the plain computation,
which learns; without gradients `loftup_inference` computes the same faster.

Shapes: B batch, C feature channels, h w low-resolution grid, H W image pixels, D = C + 20 working
width, n heads, d = D / n, N queries, K texts.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .guide import (
    FourierFeatures,
    Window,
    coordinates,
    scale_colours,
)
from .inference import FoldedLoftUp

GUIDE_SIGNALS, GUIDE_FREQUENCIES = 5, 20  # row, column, r, g, b
GRID_SIGNALS, GRID_FREQUENCIES = 2, 5  # row, column
GUIDE_CHANNELS = 2 * GUIDE_SIGNALS * GUIDE_FREQUENCIES + 3
GRID_CHANNELS = 2 * GRID_SIGNALS * GRID_FREQUENCIES
HEADS = 4
LAYERS = 2
_HALO = 2  # reach of the two 3x3 convolutions, pixels


class LoftUp(nn.Module):
    """The upsampler with its channel norm; `load_state_dict` takes the official dict."""

    def __init__(self, dim: int) -> None:
        """`dim` is C, the channels of the features; C + 20 must be a multiple of the 4 heads."""
        super().__init__()
        if dim < 1 or (dim + GRID_CHANNELS) % HEADS:
            raise ValueError(f"LoftUp needs a positive multiple of {HEADS} channels, got {dim}")
        self.dim = dim
        self.channelnorm = ChannelNorm(dim)
        self.upsampler = _Upsampler(dim)

    def forward(
        self,
        features: Tensor,
        image: Tensor,
        window: tuple[int, int, int, int] | None = None,
    ) -> Tensor:
        """Upsample `features` to the image, or to a window of it.

        In eval mode without gradients the work is done tile by tile with folded weights, in
        autocast's type where it is on (all but waves, soft-max and norms' statistics), else in the
        module's.

        Args:
            features: (B, C, h, w), as the backbone gives them (no L2 normalisation).
            image: (B, 3, H, W) in any range: only positions and min-max scaled colours count.
            window: (top, left, height, width) in pixels of `image`; None is the whole image. Gives
                the same values as cutting the whole output, at the window's cost (exact in eval
                mode; in training mode the batch norms see the window and its halo alone).

        Returns:
            (B, C, H, W), or (B, C, height, width) with a window. The values live in the space of
            `channelnorm`; see `restore_text_space`.
        """
        self._check(features, image)
        height, width = image.shape[2:]
        window = Window(0, 0, height, width) if window is None else Window(*window)
        if not (
            0 <= window.top < window.top + window.height <= height
            and 0 <= window.left < window.left + window.width <= width
        ):
            raise ValueError(f"{window} does not lie inside the {height}x{width} image")

        scaled = scale_colours(image)
        if torch.is_grad_enabled() or self.training:
            net = self.upsampler
            context = net.encode_context(self.channelnorm(features.to(net.dtype)))
            return net(net.ca_transformer.keys_values(context), scaled, window)

        dtype = self._inference_dtype(image.device)
        # Channels last in memory, as the values come.
        shape = len(features), window.height, window.width, self.dim
        output = torch.empty(shape, dtype=dtype, device=image.device)
        with torch.autocast(image.device.type, enabled=False):
            for place, values in FoldedLoftUp(self, dtype).strips(features, scaled, window):
                rows, columns = place.slices(window)
                output[place.image, rows, columns] = values
        return output.permute(0, 3, 1, 2)

    @torch.no_grad()
    def upsample_scores(
        self, features: Tensor, image: Tensor, text: Tensor, *, restore: bool = True
    ) -> Tensor:
        """Cosines of the upsampled features with text vectors, without holding the features.

        Args:
            features, image: as for `forward`.
            text: (K, C) unit vectors.
            restore: bring the features back with `restore_text_space` first, as text needs it.

        Returns:
            (B, K, H, W) float32, what upsampling, restoring, normalising and multiplying give.
        """
        self._check(features, image)
        if self.training:
            raise ValueError("upsample_scores works in eval mode: call .eval() first")
        if text.ndim != 2 or text.shape[1] != self.dim:
            raise ValueError(f"text must have shape (K, {self.dim}), got {tuple(text.shape)}")
        height, width = image.shape[2:]
        dtype = self._inference_dtype(image.device)
        output = text.new_empty((len(features), len(text), height, width), dtype=torch.float32)
        with torch.autocast(image.device.type, enabled=False):
            text, norm = text.float(), self.channelnorm.norm
            scale = norm.weight.float().reciprocal()
            shift = -norm.bias.float() * scale
            statistics = _statistics(features, norm, (height, width))  # (B, 2, H, W)
            whole, scaled = Window(0, 0, height, width), scale_colours(image)
            for place, values in FoldedLoftUp(self, dtype).strips(features, scaled, whole):
                rows, columns = place.slices(whole)
                values = values.float()
                if restore:
                    deviation, mean = statistics[place.image, :, rows, columns, None]
                    values = torch.addcmul(mean, torch.addcmul(shift, values, scale), deviation)
                length = values.norm(dim=2).clamp_min(1e-12)
                cosines = (values @ text.T).movedim(2, 0) / length
                output[place.image, :, rows, columns] = cosines
        return output

    def _inference_dtype(self, device: torch.device) -> torch.dtype:
        """What convolutions and products are computed in: autocast's type, else the weights'."""
        if torch.is_autocast_enabled(device.type):
            return torch.get_autocast_dtype(device.type)
        return self.upsampler.dtype

    def encode_guide(self, image: Tensor) -> Tensor:
        """The Fourier encoding of a whole guide image: (B, 3, H, W) -> (B, 203, H, W) float32."""
        scaled = scale_colours(image)
        return self.upsampler.encode_guide(scaled, Window(0, 0, *image.shape[2:]))

    def _check(self, features: Tensor, image: Tensor) -> None:
        if features.ndim != 4 or features.shape[1] != self.dim:
            raise ValueError(
                f"features must have shape (B, {self.dim}, h, w) for this LoftUp, got "
                f"{tuple(features.shape)}"
            )
        if image.ndim != 4 or image.shape[1] != 3 or image.shape[0] != features.shape[0]:
            raise ValueError(
                f"image must have shape ({features.shape[0]}, 3, H, W), got {tuple(image.shape)}"
            )


def restore_text_space(upsampled: Tensor, lr_features: Tensor, norm: nn.LayerNorm) -> Tensor:
    """Undo the channel norm, so that upsampled features compare with text vectors again.

    LoftUp's output lives in the channel-normalised space. With the norm's weight w and bias b, and
    each low-resolution location's mean μ and deviation σ brought bilinearly to the pixels,
    ((y − b) / w) · σ + μ is back in the backbone's own (for CLIP: the joint) space.

    Args:
        upsampled: (B, C, H, W), LoftUp's output.
        lr_features: (B, C, h, w), the features it was given.
        norm: `loftup.channelnorm.norm`.

    Returns:
        (B, C, H, W) float32.
    """
    statistics = _statistics(lr_features, norm, upsampled.shape[2:])
    deviation, mean = statistics.split(1, dim=1)  # (B, 1, H, W) each
    weight, bias = (p.float()[:, None, None] for p in (norm.weight, norm.bias))
    return (upsampled.float() - bias) / weight * deviation + mean


def _statistics(features: Tensor, norm: nn.LayerNorm, size: tuple[int, int]) -> Tensor:
    """Deviation and mean of every location's channels, brought to the pixels: (B, 2, H, W)."""
    variance, mean = torch.var_mean(features.float(), dim=1, keepdim=True, correction=0)
    statistics = torch.cat([(variance + norm.eps).sqrt(), mean], dim=1)  # (B, 2, h, w)
    return F.interpolate(statistics, size, mode="bilinear")


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of (B, C, H, W), at every location."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = _ChannelLayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


class _ChannelLayerNorm(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


def _grid(height: int, width: int) -> Tensor:
    """Row and column positions of all pixels, (2, H, W) float32."""
    return torch.stack(torch.meshgrid(*coordinates(height, width), indexing="ij"))


class _Upsampler(nn.Module):
    """Queries from the guide, context from the features, cross-attention, output projection."""

    def __init__(self, dim: int) -> None:
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
        self.ca_transformer = _CrossAttentionTransformer(width, dim)
        self.final_conv = nn.Sequential(nn.Conv2d(width, dim, 1), _ChannelLayerNorm(dim, eps=1e-6))

    @property
    def dtype(self) -> torch.dtype:
        return self.final_conv[0].weight.dtype

    def forward(
        self, keys_values: list[tuple[Tensor, Tensor]], scaled: Tensor, window: Window
    ) -> Tensor:
        """Upsampled features (B, C, height, width) of one window of the scaled image."""
        # The convolutions run on the window plus their reach, cut at the image border, where their
        # zero padding is the real one. Values spoilt by padding elsewhere are within the halo.
        top, left = max(0, window.top - _HALO), max(0, window.left - _HALO)
        bottom = min(scaled.shape[2], window.top + window.height + _HALO)
        right = min(scaled.shape[3], window.left + window.width + _HALO)
        guide = self.encode_guide(scaled, Window(top, left, bottom - top, right - left))
        queries = self.first_conv(guide.to(self.dtype))
        top, left = window.top - top, window.left - left
        queries = queries[:, :, top : top + window.height, left : left + window.width]

        x = queries.flatten(2).transpose(1, 2)  # (B, N, D)
        x = self.ca_transformer(x, keys_values)
        x = x.transpose(1, 2).unflatten(2, (window.height, window.width))
        return self.final_conv(x)

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


class _CrossAttentionTransformer(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleList([_CrossAttention(width), _FeedForward(width, hidden)])
            for _ in range(LAYERS)
        )
        self.norm = nn.LayerNorm(width)

    def keys_values(self, context: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Every layer's keys and values, the same for all queries."""
        return [attention.keys_values(context) for attention, _ in self.layers]

    def forward(self, x: Tensor, keys_values: list[tuple[Tensor, Tensor]]) -> Tensor:
        for (attention, feed_forward), (keys, values) in zip(self.layers, keys_values, strict=True):
            x = x + attention(x, keys, values)
            x = x + feed_forward(x)
        return self.norm(x)


class _CrossAttention(nn.Module):
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


class _FeedForward(nn.Module):
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
