"""Masks of photographs that have none: classical segmentations of scikit-image.

They follow colour, not things: a shadow is a segment, and a wall and a sky of one grey are not two.
Masks by people or by SA-1B are better where there are any.

Shapes: H×W pixels.
"""

from __future__ import annotations

import numpy as np

from .config import SEGMENTERS


def segment(image: np.ndarray, method: str) -> np.ndarray:
    """A map of regions (H, W) int64, 0…R-1, of an image (H, W, 3) uint8.

    Args:
        image: of any size; segments get larger with it.
        method: "felzenszwalb" (Felzenszwalb & Huttenlocher 2004), whose segments are as large as
            what looks alike, or "slic" (Achanta et al. 2012), some 100 of about one size.

    Raises:
        ValueError: unknown method.
    """
    from skimage.segmentation import felzenszwalb, slic

    pixels = image.shape[0] * image.shape[1]
    if method == "felzenszwalb":
        found = felzenszwalb(image, scale=300, sigma=0.8, min_size=max(20, pixels // 1000))
    elif method == "slic":
        found = slic(image, n_segments=100, compactness=10, start_label=0)
    else:
        raise ValueError(f"unknown segmentation {method!r}; valid: {', '.join(SEGMENTERS)}")
    return np.asarray(found).astype(np.int64)
