"""The networks that the stages train: LoftUp, and NAF under the same calls.

Shapes: B images, n windows of all images, C channels, h×w patches, R regions, H×W pixels, s side of
a window, `heads` of the mix (NAF's 4; 1 for LoftUp's).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.backbones.base import IMAGENET_MEAN, IMAGENET_STD, normalise
from models.loftup.modules import GUIDE_FREQUENCIES, GUIDE_SIGNALS, ChannelNorm
from models.loftup.network import LoftUp
from models.naf.network import HEADS, NAF, WINDOW, attend, cells_seen

from .config import LoftUpConfig
from .crops import Starts, upsample_windows


class NafStudent(nn.Module):
    """NAF behind a channel norm, so that channels of all sizes count alike in a loss.

    The norm does not learn and is no part of the weights: NAF mixes any values the same way.
    """

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.dim, self.channelnorm, self.naf = dim, ChannelNorm(dim), NAF(width)

    def forward(self, features: Tensor, image: Tensor) -> Tensor:
        """As `LoftUp.forward`, of uint8 images."""
        return self.naf(_colours(image), self.channelnorm(features))

    def mix_windows(self, values: Tensor, images: Tensor, starts: Starts, side: int) -> Tensor:
        """Windows of any values (B, heads, V, h, w), mixed: (n, heads, V, s, s).

        The whole image is encoded, as its statistics and means need; the windows alone attend.
        """
        size, grid = (images.shape[2], images.shape[3]), (values.shape[3], values.shape[4])
        queries = self.naf.image_encoder(_colours(images), size)
        keys = F.adaptive_avg_pool2d(queries, grid).unflatten(1, (HEADS, -1))
        rows, columns = (
            cells_seen(*axis).to(images.device) for axis in zip(size, grid, strict=True)
        )
        windows = []
        for i, places in enumerate(starts):
            for top, left in places:
                down, across = slice(top, top + side), slice(left, left + side)
                own, seen = queries[i : i + 1, :, down, across], (rows[down], columns[across])
                windows.append(attend(own, keys[i : i + 1], values[i : i + 1], *seen))
        return torch.cat(windows).unflatten(1, (HEADS, -1))


@torch.no_grad()
def start_naf_locally(naf: NAF, cells: int) -> None:
    """Let a new NAF's pixels average the patches around them, before it learns which of them.

    Random weights see all 9×9 patches alike. A constant in every query, turned by one slow wave of
    the rotation, tells how far a patch is: the weights fall off like a Gaussian of half a patch.

    Args:
        naf: gets biases of its last convolutions.
        cells: patches of a training image along an axis; positions count in parts of the image.
    """
    part = naf.image_encoder.dim // HEADS  # channels of a head: row waves, column waves, twice
    periods = naf.image_encoder.rope.periods.tolist()  # in half images
    # The fastest wave that does not come again among the patches that a pixel sees.
    wave = next((i for i, p in enumerate(periods) if p * cells / 2 > WINDOW), len(periods) - 1)
    turn = 2 * math.pi * 2 / (cells * periods[wave])  # of one patch; cos x is about 1 - x² / 2
    gain = math.sqrt(2 * part**0.5) / (turn * REACH) / 2**0.5
    for encoder in (naf.image_encoder.encoder, naf.image_encoder.sem_encoder):
        last = [module for module in encoder.modules() if isinstance(module, nn.Conv2d)][-1]
        assert last.bias is not None
        last.bias.view(-1, part)[:, [wave, part // 4 + wave]] = gain


def _colours(image: Tensor) -> Tensor:
    """What NAF is given of uint8 images."""
    return normalise(image.float() / 255, IMAGENET_MEAN, IMAGENET_STD)


Student = LoftUp | NafStudent
REACH = 0.5  # standard deviation of an untaught mix, patches


def build_student(config: LoftUpConfig, dim: int) -> Student:
    """A new student for features of `dim` channels, and what it does not learn fixed.

    The channel norm stays plain: the target lives in its space, which could otherwise shrink. What
    a LoftUp's encoding of a pixel says above the used frequencies, where neighbouring pixels and
    noise look alike, is never listened to: those weights stay zero.

    Raises:
        ValueError: features that the network cannot have.
    """
    if config.network == "naf":
        if dim % HEADS:
            raise ValueError(f"NAF needs a multiple of {HEADS} channels, the backbone has {dim}")
        student = NafStudent(dim, config.width)
        student.channelnorm.requires_grad_(False)
        return student
    student = LoftUp(dim, config.head)
    student.channelnorm.requires_grad_(False)
    student.upsampler.fourier_feat.requires_grad_(config.learn_phases)
    used = torch.ones(2, GUIDE_FREQUENCIES, GUIDE_SIGNALS)
    used[:, config.frequencies :] = 0
    used = torch.cat([used.flatten(), torch.ones(3)])[:, None, None]
    weight = student.upsampler.first_conv.get_parameter("1.weight")
    weight.data *= used
    weight.register_hook(lambda gradient: gradient * used.to(gradient))
    return student


def network_of(student: Student) -> nn.Module:
    """The part of a student that is kept, under the names of the published checkpoints."""
    return student.naf if isinstance(student, NafStudent) else student


def upsample_student(
    student: Student,
    features: Tensor,
    images: Tensor,
    starts: Starts,
    side: int,
    shares: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Windows of the output, and of other values mixed like the features.

    Args:
        student: to be trained.
        features: (B, C, h, w), as the backbone gives them.
        images: (B, 3, H, W) uint8.
        starts: where the windows lie.
        side: of a window, pixels.
        shares: (B, R, h, w), or None; of a student that mixes.

    Returns:
        (n, C, s, s) in the space of the channel norm; (n, heads, R, s, s) or None.
    """
    if not isinstance(student, NafStudent):
        found = upsample_windows(student, features, images, starts, side, shares)
        own, others = found.tensor_split([student.dim], dim=1)
        return own, None if shares is None else others[:, None]
    values = student.channelnorm(features).unflatten(1, (HEADS, -1))
    if shares is not None:
        values = torch.cat([values, shares[:, None].expand(-1, HEADS, -1, -1, -1)], dim=2)
    windows = student.mix_windows(values, images, starts, side)
    own, others = windows.tensor_split([student.dim // HEADS], dim=2)
    return own.flatten(1, 2), None if shares is None else others
