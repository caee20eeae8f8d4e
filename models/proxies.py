"""The second networks of dense methods ("proxies"): features of a window, upsampled if wanted.

By name: `sam2` is the encoder of the preset's SAM 2; the others are those of
`models.backbones.build`, such as `dinov2_vitb14_reg`.

Shapes: B windows, C' channels, h' w' the proxy's grid, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .backbones.base import IMAGENET_MEAN, IMAGENET_STD, Backbone
from .dense_methods.settings import SAM2
from .upsamplers.base import Upsampler


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """A second network as a dense method sees it.

    Attributes:
        backbone: the network.
        scale: its features are upsampled so much; 1 leaves them as they are.
        upsampler: by this.
        networks: by name, for the record.
    """

    backbone: Backbone
    scale: int = 1
    upsampler: Upsampler | None = None
    networks: dict[str, nn.Module]

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Features (B, C', h', w') float32 of images (B, 3, H, W), RGB 0…1.

        They are as large as the images are: a cell for each patch of the network, of images
        enlarged to whole patches, times `scale`.
        """
        found = self.backbone.encode_colours(images)
        if self.scale == 1:
            return found
        assert self.upsampler is not None, "there is one if there is a scale"
        size = (found.shape[2] * self.scale, found.shape[3] * self.scale)
        guide = F.interpolate(images.float(), size, mode="bilinear", antialias=True)
        # Window by window: an upsampler holds more of each than its result.
        parts = [
            self.upsampler.upsample(found[i : i + 1], guide[i : i + 1], size)
            for i in range(len(found))
        ]
        return torch.cat(parts).float()


def sam2_backbone(model: Any) -> Backbone:
    """SAM 2's image encoder after its neck: a square grid of S/16 whatever the image's shape.

    The image is stretched to the network's square S×S, as SAM 2 does itself.

    Args:
        model: a `SAM2Base` of the sam2 package.
    """
    side = model.image_size

    def encode(images: Tensor) -> Tensor:
        square = F.interpolate(images, (side, side), mode="bilinear", antialias=True)
        return model.forward_image(square)["backbone_fpn"][-1]

    return Backbone(
        name=SAM2,
        dim=model.sam_prompt_encoder.embed_dim,
        patch=1,  # any size will do
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        model=model,
        encode=encode,
        kind=SAM2,
    )
