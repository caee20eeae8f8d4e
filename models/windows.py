"""SCLIP's sliding windows: resize, cut, encode in batches, stitch.

The protocol (Wang et al., SCLIP, arXiv:2312.01597, after mmsegmentation): the image is resized to
a short side of 336 px, CLIP sees windows of 224 px every 112 px, and what the windows say is
averaged where they overlap. Two ways to get from patch features to pixels:

- `sliding_scores`: every window is scored at its own pixels, and the scores are averaged (the
  published way, with bilinearly enlarged scores).
- `whole_image_scores`: the windows' features are stitched into one grid for the whole image,
  which is then upsampled once.

Shapes: N windows, b windows of a batch, C channels, Q query words, h w patch grid, H W pixels of
the resized image, Hw Ww pixels of a window, Hp Wp the same padded to multiples of the patch.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .backbones.base import Backbone

# (features (b, C, h, w), guide images (b, 3, Hp, Wp)) -> word scores or probabilities
# (b, Q, Hp, Wp)
Scorer = Callable[[Tensor, Tensor], Tensor]


def protocol_size(size: tuple[int, int], short: int = 336, long: int = 2048) -> tuple[int, int]:
    """(H, W) after resizing (H, W) with its ratio kept, as mmcv's `imrescale` rounds it.

    The short side becomes `short` unless the long one would exceed `long`; never below one pixel.
    """
    scale = min(long / max(size), short / min(size))
    return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))


def resize_for_protocol(image: np.ndarray, short: int = 336, long: int = 2048) -> np.ndarray:
    """Resize a uint8 RGB image (H, W, 3) to `protocol_size`, bilinearly and without antialiasing.

    The published numbers were measured with OpenCV's resize on uint8, so it is used here too.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(
            f"image must be uint8 RGB of shape (H, W, 3), got {image.dtype} {image.shape}"
        )
    height, width = protocol_size(image.shape[:2], short, long)
    if (height, width) == image.shape[:2]:
        return image
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def window_slices(
    size: tuple[int, int], window: int | None, stride: int
) -> list[tuple[slice, slice]]:
    """Row and column slices of all windows over an image of `size` (H, W), row by row.

    Window k starts at k·stride; one that would stick out is shifted back inside. A side shorter
    than the window is taken whole, so all windows have the same size. Without a window (None) the
    whole image is one.
    """
    if window is None:
        return [(slice(0, size[0]), slice(0, size[1]))]
    if not 0 < stride <= window:
        raise ValueError(f"stride must be between 1 and the window {window}, got {stride}")

    def axis(length: int) -> list[slice]:
        count = max(length - window + stride - 1, 0) // stride + 1
        ends = [min(k * stride + window, length) for k in range(count)]
        return [slice(max(end - window, 0), end) for end in ends]

    columns = axis(size[1])
    return [(row, column) for row in axis(size[0]) for column in columns]


def pad_to_multiple(image: Tensor, patch: tuple[int, int]) -> Tensor:
    """Repeat the last row and column until H and W of (B, 3, H, W) are multiples of the patch.

    Padding is at the bottom and right only, so pixel coordinates stay, and [:H, :W] undoes it.
    Repeating makes no edge at the image border, as a constant would. ProxyCLIP and CorrCLIP centre
    windows in zeros up to multiples of 56 instead. Under their protocols the windows are such
    multiples already, unless a side is shorter than the window: where the long side's limit leaves
    less than the short side (images longer than about 6:1). There the two ways differ.
    """
    height, width = image.shape[2:]
    return F.pad(image, (0, -width % patch[1], 0, -height % patch[0]), mode="replicate")


def whole_patches(image: Tensor, patch: tuple[int, int]) -> Tensor:
    """Leave out the rows and columns of (B, 3, H, W) that fill no patch.

    A side below one patch is padded to it.
    """
    height, width = (max(n // p, 1) * p for n, p in zip(image.shape[2:], patch, strict=True))
    return pad_to_multiple(image[:, :, :height, :width], patch)


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowFeatures:
    """The patch features of all windows of one image."""

    image: Tensor  # (1, 3, H, W), normalised
    slices: list[tuple[slice, slice]]  # N windows in pixels of the image
    patch: tuple[int, int]
    features: Tensor  # (N, C, h, w), not L2-normalised; the grid covers the padded window
    batch: int  # windows worked on at once
    drop_remainder: bool = False  # the grid covers whole patches, and is stretched over the window

    def guide(self, images: Tensor) -> Tensor:
        """The images (b, 3, H, W) that the grids cover: padded, unless grids are stretched."""
        return images if self.drop_remainder else pad_to_multiple(images, self.patch)

    def batches(self) -> Iterator[tuple[list[tuple[slice, slice]], Tensor, Tensor]]:
        """Slices, features (b, C, h, w) and their guides (b, 3, Hp, Wp), batch by batch."""
        for start in range(0, len(self.slices), self.batch):
            slices = self.slices[start : start + self.batch]
            yield (
                slices,
                self.features[start : start + self.batch],
                self.guide(_cut(self.image, slices)),
            )


def _cut(image: Tensor, slices: list[tuple[slice, slice]]) -> Tensor:
    return torch.cat([image[:, :, row, column] for row, column in slices])


@torch.no_grad()
def encode_windows(
    backbone: Backbone,
    image: Tensor,
    *,
    window: int | None = 224,
    stride: int = 112,
    batch: int = 8,
    regions: Tensor | None = None,
    drop_remainder: bool = False,
) -> WindowFeatures:
    """Dense features of every window of an image.

    Args:
        backbone: encodes them.
        image: (1, 3, H, W), resized and normalised; any size from one pixel on: windows that are
            no multiple of the patch (small images) are padded with `pad_to_multiple`.
        window, stride: pixels; window None takes the whole image at once.
        batch: windows encoded, and later scored, at once; bounds the memory, not the result.
        regions: (H, W) of the image, for a backbone that needs them; it is shown each window's.
        drop_remainder: instead of padding, see `models.protocols.Protocol`.
    """
    if image.ndim != 4 or image.shape[:2] != (1, 3) or 0 in image.shape:
        raise ValueError(f"image must have shape (1, 3, H, W), got {tuple(image.shape)}")
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    patch = (backbone.patch, backbone.patch)
    slices = window_slices((image.shape[2], image.shape[3]), window, stride)
    fit = whole_patches if drop_remainder else pad_to_multiple
    given = [image]
    if backbone.regions:
        assert regions is not None, "the backbone needs them"
        given.append(regions[None, None].float())  # ids are exact up to 2^24
    features = []
    for start in range(0, len(slices), batch):
        windows = [fit(_cut(x, slices[start : start + batch]), patch) for x in given]
        if backbone.regions:
            windows[1] = windows[1][:, 0].long()
        features.append(backbone.encode(*windows))
    return WindowFeatures(
        image=image,
        slices=slices,
        patch=patch,
        features=torch.cat(features).to(image.dtype),  # autocast may have made them smaller
        batch=batch,
        drop_remainder=drop_remainder,
    )


def cosine_scores(features: Tensor, text: Tensor) -> Tensor:
    """Cosine of features (b, C, H, W) with text vectors (Q, C): (b, Q, H, W) float32."""
    features = features.float()
    norm = features.norm(dim=1, keepdim=True).clamp_min(1e-12)
    return torch.einsum("bchw,qc->bqhw", features, unit_vectors(text)) / norm


def unit_vectors(text: Tensor) -> Tensor:
    """Text vectors (Q, C) of length 1, float32; those that have it stay the same bits."""
    text = text.float()
    length = text.norm(dim=1, keepdim=True)
    return torch.where((length - 1).abs() > 1e-4, text / length.clamp_min(1e-12), text)


@torch.no_grad()
def sliding_scores(windows: WindowFeatures, scorer: Scorer) -> Tensor:
    """Score every window at its own pixels, and average where windows overlap: (Q, H, W)."""
    height, width = windows.image.shape[2:]
    count = windows.image.new_zeros(height, width, dtype=torch.float32)
    total: Tensor | None = None
    for slices, features, guide in windows.batches():
        scores = scorer(features, guide)  # (b, Q, Hp, Wp)
        if total is None:
            total = scores.new_zeros(scores.shape[1], height, width)
        for (row, column), window in zip(slices, scores, strict=True):
            visible = window[:, : row.stop - row.start, : column.stop - column.start]
            total[:, row, column] += visible
            count[row, column] += 1
    assert total is not None, "there is a window"
    return total / count


@torch.no_grad()
def stitch_features(windows: WindowFeatures) -> Tensor:
    """One feature grid for the whole image, (1, C, ⌈H/patch⌉, ⌈W/patch⌉), or ⌊ ⌋ if dropped.

    Where windows have another grid than that of patches, cells are of its size, as nearly as whole
    ones fill the image. Cell (i, j) is the mean over the windows that hold its centre. A window
    whose start is no multiple of the cell (the last one, shifted back) is read bilinearly between
    its own cells' centres, at its edge from the outermost one. The centre of a last cell that
    sticks out of the image counts as held by the windows that hold the last pixel. The grid belongs
    to `windows.guide(windows.image)`.
    """
    fit = whole_patches if windows.drop_remainder else pad_to_multiple
    covered = fit(windows.image[:, :1], windows.patch).shape[2:]
    row, column = windows.slices[0]  # all are of one size
    seen = fit(windows.image[:, :1, row, column], windows.patch).shape[2:]
    total = count = torch.zeros((), device=windows.features.device)
    for slices, features in zip(windows.slices, windows.features.float(), strict=True):
        rows, columns = (
            _cell_weights(
                covered[axis],
                windows.image.shape[2 + axis],
                slices[axis],
                seen[axis],
                features.shape[1 + axis],
            ).to(features)
            for axis in (0, 1)
        )
        total = total + torch.einsum("ih,chw,jw->cij", rows, features, columns)
        count = count + rows.sum(1)[:, None] * columns.sum(1)
    return (total / count)[None]


def _cell_weights(covered: int, length: int, window: slice, seen: int, tokens: int) -> Tensor:
    """Weights (cells of the image, tokens of the window) along one axis.

    A row holds the linear interpolation of its cell's centre; zeros if the window lacks it.

    Args:
        covered: pixels of the image that cells lie on, of whole patches.
        length: pixels of the image.
        window: of its pixels.
        seen: pixels of a window that its tokens lie on, of whole patches.
        tokens: of a window.
    """
    cell = seen / tokens  # pixels; a patch, unless a second network has another grid
    cells = max(1, round(covered / cell))
    centres = (torch.arange(cells) + 0.5) * (covered / cells)
    held = centres.clamp_max(length - 0.5)
    inside = (window.start <= held) & (held < window.stop)
    position = ((centres - window.start) / cell - 0.5).clamp(0, tokens - 1)
    distance = (position[:, None] - torch.arange(tokens)).abs()
    return (1 - distance).clamp_min(0) * inside[:, None]


@torch.no_grad()
def whole_image_scores(windows: WindowFeatures, scorer: Scorer) -> Tensor:
    """Stitch the windows' features, and score the whole image at once: (Q, H, W)."""
    height, width = windows.image.shape[2:]
    guide = windows.guide(windows.image)
    return scorer(stitch_features(windows), guide)[0, :, :height, :width]
