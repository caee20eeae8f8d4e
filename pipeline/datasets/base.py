"""The interface of data sets that predictions are scored on, and their table.

Labels are the data set's own: 0 is background where it has one, `ignore` is not scored.
Shapes: H×W image pixels, C labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class GroundTruth:
    """What is to be seen in one image.

    Attributes:
        labels: (H, W) uint8 or uint16, 0…C-1 or `ignore`.
        objects: (H, W) uint8, 1…254 one object each; None where the data set has none.
    """

    labels: np.ndarray
    objects: np.ndarray | None


class Dataset(Protocol):
    """The images of one list, with their ground truth.

    Attributes:
        labels: names of the C labels; the first is "background" where the data set has one.
        ignore: the label that is not scored.
        root: its folder.
        split: name or path of the list, as given.
        ids: the images, in the list's order, after a limit.
        listed: number of ids in the list, before the limit.
        official_size: number of images the published list of this name has; None for other data.
        has_objects: whether objects of a class can be told apart.
    """

    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def ignore(self) -> int: ...
    @property
    def root(self) -> Path: ...
    @property
    def split(self) -> str: ...
    @property
    def ids(self) -> tuple[str, ...]: ...
    @property
    def listed(self) -> int: ...
    @property
    def official_size(self) -> int | None: ...
    @property
    def has_objects(self) -> bool: ...

    def image_path(self, image_id: str) -> Path:
        """The picture's file."""
        ...

    def label_paths(self, image_id: str) -> tuple[Path, ...]:
        """The files of `load_truth`."""
        ...

    def load_image(self, image_id: str) -> np.ndarray:
        """The picture, (H, W, 3) uint8 RGB; ValueError or FileNotFoundError if it is none."""
        ...

    def load_truth(self, image_id: str) -> GroundTruth:
        """Labels and objects, of the picture's size; errors as of `load_image`."""
        ...
