"""LoftUp: features of a backbone, upsampled to the pixels of the image that guides them.

Huang et al., "LoftUp: Learning a Coordinate-Based Feature Upsampler for Vision Foundation
Models", ICCV 2025, arXiv:2504.14032. Every pixel is a query built from its position and colour;
the queries read the low-resolution features through two cross-attention layers. The official
checkpoints load strictly. `modules` is the plain computation, which learns; without gradients
`inference` computes the same faster.

Shapes: B batch, C feature channels, h w low-resolution grid, H W image pixels, K texts.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .guide import scale_colours
from .heads import HEADS as LAST_LAYERS
from .inference import FoldedLoftUp
from .modules import GRID_CHANNELS, HEADS, ChannelNorm, Upsampler


class LoftUp(nn.Module):
    """The upsampler with its channel norm; `load_state_dict` takes the official dict."""

    def __init__(self, dim: int, head: str = "projection") -> None:
        """`dim` is C, the channels of the features; C + 20 must be a multiple of the 4 heads.

        `head` is the last layer: the published "projection", or one of `heads.HEADS`.
        """
        super().__init__()
        if dim < 1 or (dim + GRID_CHANNELS) % HEADS:
            raise ValueError(f"LoftUp needs a positive multiple of {HEADS} channels, got {dim}")
        if head not in ("projection", *LAST_LAYERS):
            valid = ", ".join(("projection", *LAST_LAYERS))
            raise ValueError(f"unknown head {head!r} of LoftUp; valid: {valid}")
        self.dim = dim
        self.channelnorm = ChannelNorm(dim)
        self.upsampler = Upsampler(dim, head)

    def forward(self, features: Tensor, image: Tensor) -> Tensor:
        """Upsample `features` to the image.

        In eval mode without gradients the work is done tile by tile with folded weights, in
        autocast's type where it is on (all but waves, soft-max and norms' statistics), else in the
        module's.

        Args:
            features: (B, C, h, w), as the backbone gives them (no L2 normalisation).
            image: (B, 3, H, W) in any range: only positions and min-max scaled colours count.

        Returns:
            (B, C, H, W) in the space of `channelnorm`; see `restore_text_space`.
        """
        self._check(features, image)
        scaled = scale_colours(image)
        if torch.is_grad_enabled() or self.training:
            return self.upsampler(self.channelnorm(features.to(self.upsampler.dtype)), scaled)

        dtype = self._inference_dtype(image.device)
        # Channels last in memory, as the values come.
        shape = len(features), *image.shape[2:], self.dim
        output = torch.empty(shape, dtype=dtype, device=image.device)
        with torch.autocast(image.device.type, enabled=False):
            for place, values in self._folded(dtype).strips(features, scaled):
                output[place] = values
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
            for place, values in self._folded(dtype).strips(features, scale_colours(image)):
                index, rows, columns = place
                values = values.float()
                if restore:
                    deviation, mean = statistics[index, :, rows, columns, None]
                    values = torch.addcmul(mean, torch.addcmul(shift, values, scale), deviation)
                length = values.norm(dim=2).clamp_min(1e-12)
                cosines = (values @ text.T).movedim(2, 0) / length
                output[index, :, rows, columns] = cosines
        return output

    def _inference_dtype(self, device: torch.device) -> torch.dtype:
        """What convolutions and products are computed in: autocast's type, else the weights'."""
        if torch.is_autocast_enabled(device.type):
            return torch.get_autocast_dtype(device.type)
        return self.upsampler.dtype

    def _folded(self, dtype: torch.dtype) -> FoldedLoftUp:
        return FoldedLoftUp(self.upsampler, self.channelnorm, dtype)

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
    statistics = _statistics(lr_features, norm, (upsampled.shape[2], upsampled.shape[3]))
    deviation, mean = statistics.split(1, dim=1)  # (B, 1, H, W) each
    weight, bias = (p.float()[:, None, None] for p in (norm.weight, norm.bias))
    return (upsampled.float() - bias) / weight * deviation + mean


def _statistics(features: Tensor, norm: nn.LayerNorm, size: tuple[int, int]) -> Tensor:
    """Deviation and mean of every location's channels, brought to the pixels: (B, 2, H, W)."""
    variance, mean = torch.var_mean(features.float(), dim=1, keepdim=True, correction=0)
    statistics = torch.cat([(variance + norm.eps).sqrt(), mean], dim=1)  # (B, 2, h, w)
    return F.interpolate(statistics, size, mode="bilinear")
