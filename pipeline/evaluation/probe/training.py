"""The probe: a 1×1 convolution from features to classes, trained on pixels drawn from each image.

The published protocol (LoftUp's and FeatUp's: batches of 8 images, NAdam at 1e-4, 10 epochs,
cross-entropy over all labelled pixels of a batch) but for one thing: of every image some pixels
count, the same in every epoch, for every upsampler and every seed. So an image is upsampled once,
whatever the upsampler and the number of epochs and seeds, and what is kept of it is small. With as
many pixels as the image has it is the published protocol.

Shapes: N images, P pixels of each, C channels, K classes.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.upsamplers.base import LinearUpsampler, OwnUpsampler, Upsampler


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeConfig:
    """How probes are trained.

    Attributes:
        epochs: over all training images.
        lr: of NAdam.
        batch: images of a step.
        pixels: drawn from every image; an image that has fewer gives all.
    """

    epochs: int = 10
    lr: float = 1e-4
    batch: int = 8
    pixels: int = 4096

    def __post_init__(self) -> None:
        for name in ("epochs", "lr", "batch", "pixels"):
            if (value := getattr(self, name)) <= 0:
                raise ValueError(f"{name} of the probe must be positive, got {value}")


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """Class scores are weight @ feature + bias; (K, C) and (K,) float32."""

    weight: Tensor
    bias: Tensor


def drawn_pixels(image_id: str, count: int, size: tuple[int, int]) -> np.ndarray:
    """Indices of (at most) `count` pixels of a flattened view (H, W), sorted, by the id alone."""
    total = size[0] * size[1]
    if count >= total:
        return np.arange(total)
    rng = np.random.default_rng(zlib.crc32(image_id.encode()))
    return np.sort(rng.choice(total, count, replace=False))


def pixel_features(
    upsampler: Upsampler, features: Tensor, guide: Tensor, pixels: np.ndarray
) -> np.ndarray:
    """Upsampled features at sorted indices of pixels, (P, C) float16, a strip at a time.

    Raises:
        ValueError: a value that 16 bits cannot hold.
    """
    height, width = guide.shape[2:]
    parts, start = [], 0
    for strip in upsampler.strips(features, guide, (height, width)):
        stop = start + strip.shape[2] * width
        inside = pixels[(pixels >= start) & (pixels < stop)] - start
        parts.append(strip[0].flatten(1)[:, torch.from_numpy(inside).to(strip.device)].T.half())
        start = stop
    found = torch.cat(parts).cpu().numpy()
    if not np.isfinite(found).all():
        raise ValueError(
            f"upsampled features beyond what 16 bits hold ({features.abs().max().item():.3g} before"
            " upsampling): scale the backbone's output"
        )
    return found


def train_probe(
    images: Sequence[str],
    load: Callable[[str], tuple[np.ndarray, np.ndarray]],
    shape: tuple[int, int],
    config: ProbeConfig,
    *,
    seed: int,
    ignore: int,
    device: torch.device | str = "cpu",
) -> Probe:
    """Train one probe; the same for the same arguments.

    Args:
        images: ids of the training images.
        load: id -> features (P, C) and labels (P,) of its drawn pixels.
        shape: of its weight, (K, C).
        config: see there.
        seed: of the first weights and the order of the images.
        ignore: the label of pixels that do not count.
        device: where it computes.
    """
    rng = np.random.default_rng(seed)
    layer = _first_weights(shape, seed).to(device)
    optimizer = torch.optim.NAdam(layer.parameters(), lr=config.lr)
    for _ in range(config.epochs):
        order = [images[i] for i in map(int, rng.permutation(len(images)))]
        for start in range(0, len(images), config.batch):
            loaded = [load(image_id) for image_id in order[start : start + config.batch]]
            features = torch.from_numpy(np.concatenate([part for part, _ in loaded])).to(device)
            labels = torch.from_numpy(np.concatenate([part for _, part in loaded])).to(device)
            if not (labels != ignore).any():
                continue  # their mean loss would be 0 / 0
            loss = F.cross_entropy(layer(features.float()), labels.long(), ignore_index=ignore)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return Probe(layer.weight.detach().cpu(), layer.bias.detach().cpu())


def _first_weights(shape: tuple[int, int], seed: int) -> nn.Linear:
    """A 1×1 convolution's, which torch draws like a linear layer's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Linear(shape[1], shape[0])


@torch.no_grad()
def probe_labels(
    probes: Sequence[Probe], upsampler: Upsampler, features: Tensor, guide: Tensor
) -> np.ndarray:
    """What each probe says of each pixel, (probes, H, W) uint8 or uint16.

    Where the upsampler mixes patches by weights that are the same for all channels, the classes'
    scores of the patches are upsampled instead of the features: the same, with fewer channels.
    """
    weight = torch.cat([probe.weight for probe in probes]).to(features.device)
    bias = torch.cat([probe.bias for probe in probes]).to(features.device)
    found = []
    for strip in _score_strips(weight, upsampler, features, guide):
        scores = (strip[0] + bias[:, None, None]).unflatten(0, (len(probes), -1))
        found.append(scores.argmax(1))
    labels = torch.cat(found, dim=1).cpu().numpy()
    return labels.astype(np.min_scalar_type(len(weight) // len(probes)))


def _score_strips(
    weight: Tensor, upsampler: Upsampler, features: Tensor, guide: Tensor
) -> Iterator[Tensor]:
    """weight (Q, C) @ upsampled features, in strips (1, Q, rows, W)."""
    size = (guide.shape[2], guide.shape[3])
    own = upsampler.own if isinstance(upsampler, OwnUpsampler) else upsampler
    if isinstance(own, LinearUpsampler):
        values = torch.einsum("qc,bchw->bqhw", weight, features)
        yield from own.value_strips(values, features, guide, size)
    else:
        for strip in upsampler.strips(features, guide, size):
            yield torch.einsum("qc,bchw->bqhw", weight, strip.float())
