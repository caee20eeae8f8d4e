"""LoftUp for inference: the same function as its modules, computed with less work.

Batch norms are folded into the convolutions and the affine part of every layer norm into the
product after it (where no zero padding comes between); keys and values are made once per feature
map; the image is worked through in tiles, and these in strips that stay in the processor's cache.
Memory is set by the tile. Every image is computed alone: batch mates cannot change a result.

Shapes: C feature channels, T low-resolution locations, H W image pixels, h w pixels of a tile or
strip, N = h·w, D = C + 20 working width, n heads, d = D / n. Pixels come first, channels last.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .guide import FourierFeatures, Window, coordinates
from .modules import ChannelNorm, CrossAttention, FeedForward, Upsampler, only
from .tiles import blank_outside, cut, grow, split
from .winograd import transform_weight, winograd

# Larger tiles repeat less work at their borders, strips of this size stay in a CPU's cache.
_CPU_TILE, _CPU_STRIP = 56, 1024  # side, pixels; pixels
_GPU_TILE, _GPU_STRIP = 448, 65_536
_LEAST_TILE = 56  # where a GPU has no memory for this, smaller ones do not help

logger = logging.getLogger(__name__)


Place = tuple[int, slice, slice]  # of a strip: the image's index, rows, columns


class FoldedLoftUp:
    """LoftUp's modules with their weights folded for inference.

    Folding costs little beside an image, so it is done anew for every call and is never stale.
    """

    def __init__(self, net: Upsampler, channelnorm: ChannelNorm, dtype: torch.dtype) -> None:
        """`dtype` is that of convolutions and products; Fourier features stay float32."""
        self._net, self._channelnorm, self._dtype = net, channelnorm, dtype
        (fourier,) = only(FourierFeatures, net.fourier_feat)
        (guide_norm,) = only(ChannelNorm, net.first_conv)
        self._guide = _Guide(fourier, guide_norm.norm)
        convolutions, norms = only(nn.Conv2d, net.first_conv), only(nn.BatchNorm2d, net.first_conv)
        self._convolutions = (
            _Convolution(convolutions[0], norms[0], dtype, self._guide.order),
            _Convolution(convolutions[1], norms[1], dtype),
        )
        self._feed_forwards = [_FeedForward(f, dtype) for _, f in net.ca_transformer.pairs()]
        self._last = None if net.head is not None else _Projection(net, dtype)

    def strips(self, features: Tensor, scaled: Tensor) -> Iterator[tuple[Place, Tensor]]:
        """The upsampled features of all images, piece by piece.

        Args:
            features: (B, C, h, w) low-resolution features.
            scaled: (B, 3, H, W) scaled colours.

        Yields:
            strips that together make up every image, with their values (h, w, C). When the GPU's
            memory ran out in between, some pixels come twice.

        Raises:
            torch.OutOfMemoryError: it is too little even for small tiles.
        """
        on_cpu = features.device.type == "cpu"
        side, pixels = (_CPU_TILE, _CPU_STRIP) if on_cpu else (_GPU_TILE, _GPU_STRIP)
        for image, colours in enumerate(scaled):
            grid = self._channelnorm(features[image : image + 1].to(self._net.dtype))
            attentions = self._attentions(grid)
            tiles = list(split(Window(0, 0, *scaled.shape[2:]), side))
            while tiles:
                try:
                    yield from self._tile(image, colours, tiles[0], pixels, attentions, grid)
                    del tiles[0]
                except torch.OutOfMemoryError:  # of a GPU, which others may use as well
                    side //= 2
                    if side < _LEAST_TILE:
                        raise
                    logger.warning("too little GPU memory: LoftUp goes on in tiles of %d px", side)
                    pixels = min(pixels, side * side)
                    tiles = [part for tile in tiles for part in split(tile, side)]

    def _tile(
        self,
        image: int,
        colours: Tensor,
        tile: Window,
        pixels: int,
        attentions: list[_Attention],
        grid: Tensor,
    ) -> Iterator[tuple[Place, Tensor]]:
        """`strips` of one tile of one image, in strips of about `pixels`."""
        queries = self._queries(colours, tile)
        count = max(1, round(tile.height * tile.width / pixels))
        rows = -(-tile.height // count)
        for top in range(0, tile.height, rows):
            strip = queries[top : top + rows]  # (h, w, D)
            values = self._values(strip.flatten(0, 1), attentions)
            first, left = tile.top + top, tile.left
            if self._last is None:
                where = Window(first, left, len(strip), strip.shape[1])
                values = values[None].to(self._net.dtype)
                values = self._net.finish(values, grid, colours.shape[1:], [where])
                values = values[0].flatten(1).T.to(self._dtype)
            place = image, slice(first, first + len(strip)), slice(left, left + tile.width)
            yield place, values.unflatten(0, strip.shape[:2])

    def _values(self, x: Tensor, attentions: list[_Attention]) -> Tensor:
        """From queries (N, D) to upsampled features (N, C), or to what the last layer is given."""
        for attend, feed_forward in zip(attentions, self._feed_forwards, strict=True):
            x = feed_forward(attend(x))
        if self._last is None:
            norm = self._net.ca_transformer.norm
            return F.layer_norm(x, x.shape[1:], norm.weight.to(x), norm.bias.to(x), norm.eps)
        return self._last(x)

    def _queries(self, scaled: Tensor, tile: Window) -> Tensor:
        """(h, w, D) of one tile, a query per pixel."""
        first, second = self._convolutions
        size = (scaled.shape[1], scaled.shape[2])
        x = first(self._guide(scaled, grow(tile, 2)).to(self._dtype))
        blank_outside(x, grow(tile, 1), size)  # the second one's padding is zero
        return second(x)

    def _attentions(self, grid: Tensor) -> list[_Attention]:
        """Per layer the function (N, D) -> (N, D) that adds what normed features say."""
        net = self._net
        context = net.encode_context(grid)[0]
        layers = net.ca_transformer.pairs()
        return [_Attention(attention, context, self._dtype) for attention, _ in layers]


def fold(weight: Tensor, bias: Tensor, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """Weight (O, I) and bias (O,) that give on norm-without-affine what they gave on the norm."""
    weight = _precise(weight)
    return weight * _precise(norm.weight), _precise(bias) + weight @ _precise(norm.bias)


def _precise(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


class _Guide:
    """The normed guide encoding of a window, waves of rows and columns computed once each."""

    def __init__(self, fourier: FourierFeatures, norm: nn.LayerNorm) -> None:
        _, signals, steps = fourier.biases.shape
        self._frequencies = fourier.frequencies()
        self._phases = fourier.biases.float().reshape(2, steps, signals)
        index = torch.arange(2 * signals * steps).view(2, steps, signals)  # as the module's output
        colours = torch.arange(index.numel(), index.numel() + 3)
        # Where in the module's output this one's channels are.
        self.order = torch.cat(
            [*(index[..., part].flatten() for part in (0, 1, slice(2, None))), colours]
        ).to(fourier.biases.device)
        self._norm = norm.weight[self.order].float(), norm.bias[self.order].float(), norm.eps

    def __call__(self, scaled: Tensor, window: Window) -> Tensor:
        """(3, H, W) -> (h, w, 203) float32; zero where `window` leaves the image."""
        size = (scaled.shape[1], scaled.shape[2])
        inside, padding = cut(window, size)
        rows, columns = (
            axis[start : start + count, None]
            for axis, start, count in zip(coordinates(*size), inside[:2], inside[2:], strict=True)
        )
        colours = scaled[:, inside.top :, inside.left :][:, : inside.height, : inside.width]
        colours = colours.permute(1, 2, 0)
        shape = inside.height, inside.width, -1
        guide = torch.cat(
            [
                self._waves(rows.to(scaled), slice(0, 1))[:, None].expand(shape),
                self._waves(columns.to(scaled), slice(1, 2)).expand(shape),
                self._waves(colours, slice(2, None)),
                colours,
            ],
            dim=2,
        )
        weight, bias, eps = self._norm
        return F.pad(F.layer_norm(guide, guide.shape[2:], weight, bias, eps), padding)

    def _waves(self, signals: Tensor, part: slice) -> Tensor:
        """(..., S) -> (..., 2·F·S): sines, then cosines."""
        sines, cosines = self._phases[..., part]
        waves = signals[..., None, :] * self._frequencies[:, None]
        return torch.cat([(waves + sines).sin(), (waves + cosines).cos()], dim=-2).flatten(-2)


class _Convolution:
    """3×3 convolution, batch norm and ReLU without padding: (h + 2, w + 2, I) -> (h, w, O)."""

    def __init__(
        self, conv: nn.Conv2d, norm: nn.BatchNorm2d, dtype: torch.dtype, order: Tensor | None = None
    ) -> None:
        """`order`: which input channel of `conv` each given channel is."""
        assert norm.running_mean is not None and norm.running_var is not None
        assert conv.bias is not None
        scale = _precise(norm.weight) * (_precise(norm.running_var) + norm.eps).rsqrt()
        weight = _precise(conv.weight) * scale[:, None, None, None]
        if order is not None:
            weight = weight[:, order]
        bias = (_precise(conv.bias) - norm.running_mean) * scale + norm.bias
        self._bias = bias.to(dtype)
        # In bfloat16 the transforms would lose too much, and the direct product is fast.
        self._winograd = dtype == torch.float32 and weight.device.type == "cpu"
        if self._winograd:
            self._weight = transform_weight(weight)
        else:
            self._weight = weight.to(dtype).contiguous(memory_format=torch.channels_last)

    def __call__(self, x: Tensor) -> Tensor:
        if self._winograd:
            return winograd(x, self._weight).add_(self._bias).relu_()
        x = F.conv2d(x.permute(2, 0, 1)[None], self._weight, self._bias)
        return x[0].permute(1, 2, 0).relu_()


class _Attention:
    """Cross-attention plus residual, for any number of locations: the matrix is never stored."""

    def __init__(self, attention: CrossAttention, context: Tensor, dtype: torch.dtype) -> None:
        weight, bias, keys, values = _project(attention, context)
        out = attention.attention.out_proj
        self._heads, head = weight.shape[:2]
        self._scale = head**-0.5
        # d = 133 for CLIP: zeros up to a multiple of 8 change nothing and allow the kernels that
        # do not store the whole matrix.
        zeros = -head % 8
        self._query = (
            F.pad(weight, (0, 0, 0, zeros)).flatten(0, 1).to(dtype),
            F.pad(bias, (0, zeros)).flatten().to(dtype),
        )
        self._keys, self._values = (F.pad(x, (0, zeros))[None].to(dtype) for x in (keys, values))
        weight = F.pad(_precise(out.weight).unflatten(1, (self._heads, -1)), (0, zeros)).flatten(1)
        self._out = weight.to(dtype), out.bias.to(dtype)

    def __call__(self, x: Tensor) -> Tensor:
        queries = F.linear(F.layer_norm(x, x.shape[1:]), *self._query)
        queries = queries.unflatten(1, (self._heads, -1)).transpose(0, 1)[None]  # (1, n, N, d)
        mixed = F.scaled_dot_product_attention(queries, self._keys, self._values, scale=self._scale)
        return F.linear(mixed[0].transpose(0, 1).flatten(1), *self._out).add_(x)


def _project(attention: CrossAttention, context: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Folded query projection (n, d, D) and (n, d); keys and values (n, T, d) of (T, D)."""
    module = attention.attention
    heads = module.num_heads
    weights, biases = module.in_proj_weight.chunk(3), module.in_proj_bias.chunk(3)
    weight, bias = fold(weights[0], biases[0], attention.norm_q)
    context = _precise(attention.norm_kv(context))
    keys, values = (
        F.linear(context, _precise(w), _precise(b)).unflatten(1, (heads, -1)).transpose(0, 1)
        for w, b in zip(weights[1:], biases[1:], strict=True)
    )
    return weight.unflatten(0, (heads, -1)), bias.unflatten(0, (heads, -1)), keys, values


class _Projection:
    """The published last layer, after the transformer's norm."""

    def __init__(self, net: Upsampler, dtype: torch.dtype) -> None:
        (last,), (norm,) = only(nn.Conv2d, net.final_conv), only(nn.LayerNorm, net.final_conv)
        assert last.bias is not None
        weight, bias = fold(last.weight.flatten(1), last.bias, net.ca_transformer.norm)
        self._last = weight.to(dtype), bias.to(dtype)
        self._norm = norm.weight.to(dtype), norm.bias.to(dtype), norm.eps

    def __call__(self, x: Tensor) -> Tensor:
        x = F.linear(F.layer_norm(x, x.shape[1:]), *self._last)
        return F.layer_norm(x, x.shape[1:], *self._norm)


class _FeedForward:
    """Layer norm, two linear layers with GELU between, residual."""

    def __init__(self, feed_forward: FeedForward, dtype: torch.dtype) -> None:
        (norm,) = only(nn.LayerNorm, feed_forward.net)
        first, second = only(nn.Linear, feed_forward.net)
        weight, bias = fold(first.weight, first.bias, norm)
        self._first = weight.to(dtype), bias.to(dtype)
        self._second = second.weight.to(dtype), second.bias.to(dtype)

    def __call__(self, x: Tensor) -> Tensor:
        hidden = F.gelu(F.linear(F.layer_norm(x, x.shape[1:]), *self._first))
        return F.linear(hidden, *self._second).add_(x)
