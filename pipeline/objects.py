"""One thing of a segmentation. Shapes: H×W image pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .regions import Region


@dataclass(frozen=True, kw_only=True, eq=False)
class SegmentedObject:
    """A mask with all that belongs to it; see `Segmentation`, whose row it is.

    Attributes:
        mask: (H, W) bool.
        class_id: index into the class names.
        class_name: its name.
        score: 0…1, SAM 2's predicted IoU.
        confidence: 0…1, mean class probability of the prompt's region.
        box: (4,) float32 XYXY, far edges excluded.
        points: (n, 2) float32, the prompt's points (x, y).
        source: "sam2" or "region".
    """

    mask: np.ndarray
    class_id: int
    class_name: str
    score: float
    confidence: float
    box: np.ndarray
    points: np.ndarray
    source: str

    @property
    def area(self) -> int:
        """Pixels."""
        return int(self.mask.sum())

    def cutout(self, image: np.ndarray) -> np.ndarray:
        """(h, w, 4) uint8 RGBA: the image (H, W, 3) in the mask's box, transparent outside it."""
        window = Region.from_mask(self.mask, copy=False).window
        return np.dstack([image[window], self.mask[window].astype(np.uint8) * 255])

    def __repr__(self) -> str:
        box = ", ".join(f"{edge:g}" for edge in self.box)
        return f"<{self.class_name} {self.score:.2f}, box ({box}), {self.area} px>"
