"""Means over segments of the guide at several scales, as an upsampler, without training.

Joint bilateral upsampling says what a pixel is by its own colour alone, which is noisy. So the
guide is segmented at several scales (Felzenszwalb & Huttenlocher, "Efficient graph-based image
segmentation", IJCV 2004), every segment takes the mean of what joint bilateral upsampling gives its
pixels, and a pixel the mean over the segments that hold it, mixed with its own value: nested
regions vote, and edges that several scales agree on are sharp.

Linear in the values: weights come from the guide alone.

Shapes: B batch, V channels, h w low-resolution grid, H W pixels of the guide; N segments.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from .base import LinearUpsampler, Size, fit_guide
from .joint_bilateral import joint_bilateral_strips

SCALES = (25.0, 50.0, 100.0, 200.0)  # of the segmentations: higher, larger segments
SIGMA = 0.5  # pixels, of the blur before
MIN_SIZE = 15  # pixels of the least segment
SHARE = 0.5  # of the segments in the result; the rest is joint bilateral upsampling itself


class SegmentMeans(LinearUpsampler):
    """The upsampler of this module."""

    def value_strips(
        self, values: Tensor, features: Tensor, guide: Tensor, size: Size
    ) -> Iterator[Tensor]:
        return segment_mean_strips(values.float(), fit_guide(guide, size))


def segment_mean_strips(values: Tensor, guide: Tensor) -> Iterator[Tensor]:
    """Upsample values to the guide, strip by strip.

    What is held are the segments' means and numbers, never the values of all pixels.

    Args:
        values: (B, V, h, w).
        guide: (B, 3, H, W), colours 0…1.

    Yields:
        (B, V, rows, W), from top to bottom.
    """
    images = [
        _mixed(value, image) for value, image in zip(values.split(1), guide.split(1), strict=True)
    ]
    for strips in zip(*images, strict=True):
        yield torch.cat(strips)


def segment(guide: Tensor) -> Tensor:
    """Numbers of the segments of a guide (3, H, W), one map per scale: (scales, H, W) int64."""
    from skimage.segmentation import felzenszwalb

    colours = guide.movedim(0, 2).cpu().double().numpy()
    maps = [felzenszwalb(colours, scale, SIGMA, MIN_SIZE) for scale in SCALES]
    return torch.stack([torch.from_numpy(found).long() for found in maps]).to(guide.device)


def _means(value: Tensor, image: Tensor) -> tuple[list[Tensor], Tensor]:
    """Of one image: the mean values (V, N) of each map's segments, and the maps (scales, H, W)."""
    segments = segment(image[0])
    counts = [found.flatten().bincount() for found in segments]
    sums = [value.new_zeros(value.shape[1], len(count)) for count in counts]
    top = 0
    for strip in joint_bilateral_strips(value, image):
        rows = segments[:, top : top + strip.shape[2]]
        for total, numbers in zip(sums, rows, strict=True):
            total.index_add_(1, numbers.flatten(), strip[0].flatten(1))
        top += strip.shape[2]
    return [total / count for total, count in zip(sums, counts, strict=True)], segments


def _mixed(value: Tensor, image: Tensor) -> Iterator[Tensor]:
    """The strips of one image."""
    means, segments = _means(value, image)
    top = 0
    for strip in joint_bilateral_strips(value, image):
        mixed = strip * (1 - SHARE)
        for table, numbers in zip(means, segments, strict=True):
            mixed += table[:, numbers[top : top + strip.shape[2]]] * (SHARE / len(means))
        top += strip.shape[2]
        yield mixed
