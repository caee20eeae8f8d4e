"""Training images by name; a folder of them has SA-1B's JSON files, or label PNGs elsewhere, or is
segmented.

A file or mask that cannot be used is reported by name, once, and left out; the rest goes on.

Shapes: H×W pixels.
"""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from models.images import load_image

from ...datasets.folder import images_in, images_with, images_with_labels
from ...evaluation.metrics import IGNORE
from ...files.label_png import read_index_png
from ...world.scenes import load_world
from .masks import compact
from .sa1b import Report, read_sa1b
from .samples import RenderedScenes, Sample, Source, central_view, random_view
from .segments import segment

logger = logging.getLogger(__name__)

_KEPT = 512  # segmentations: each costs as much as a step of training
_PATIENCE = 50  # unusable images in a row after which something is wrong with the folder

# Of an image by its path, its size and what is told of bad masks: a map of regions, and which of
# them every mask is made of, see `masks`.
ReadMasks = Callable[[Path, tuple[int, int], Report], tuple[np.ndarray, np.ndarray | None]]


class FolderSource:
    """Images of a folder and its sub-folders; some of them, evenly drawn, are held out."""

    def __init__(
        self,
        name: str,
        images: list[Path],
        read_masks: ReadMasks,
        held_out: int,
        min_side: int = 0,
    ) -> None:
        """Of `images`, always in the same order, `held_out` (at most a fifth) are never drawn.

        Those whose shorter side has fewer than `min_side` pixels are left out.
        """
        if len(images) < 2:
            raise ValueError(
                f"training needs at least 2 images with masks, found {len(images)}: one to learn "
                "from, one held out"
            )
        self._read_masks, self._min_side = read_masks, min_side
        self.skipped: dict[str, str] = {}  # file or mask -> why
        count = min(max(1, held_out), max(1, len(images) // 5))
        order = [images[i] for i in np.random.default_rng(0).permutation(len(images))]
        looked_at = order[: count + _PATIENCE]
        usable = (path for path in looked_at if self._load(path) is not None)
        self._held_out = list(itertools.islice(usable, count))
        if not self._held_out:
            raise self._hopeless(len(looked_at))
        self._training = sorted(order[order.index(self._held_out[-1]) + 1 :])
        self.name = f"{name}, {len(images)} images, {len(self._held_out)} held out"

    def draw(self, rng: np.random.Generator, side: int) -> Sample:
        for _ in range(_PATIENCE):
            found = self._load(self._training[int(rng.integers(len(self._training)))])
            if found is not None:
                return random_view(found, rng, side)
        raise self._hopeless(_PATIENCE)

    def held_out(self, count: int, side: int) -> list[Sample]:
        loaded = (self._load(path) for path in self._held_out[:count])
        return [central_view(found, side) for found in loaded if found is not None]

    def _hopeless(self, count: int) -> ValueError:
        what, why = next(reversed(self.skipped.items()))
        return ValueError(
            f"{count} images in a row cannot be used, the last reported: {what}: {why}; check the "
            "folder"
        )

    def _load(self, path: Path) -> Sample | None:
        try:
            image = load_image(path)
            if (side := min(image.shape[:2])) < self._min_side:
                raise ValueError(
                    f"shorter side of {side} pixels, below --min-side {self._min_side}"
                )
            return Sample(image, *self._read_masks(path, image.shape[:2], self._report))
        except (ValueError, OSError) as error:
            self._report(path.name, " ".join(str(error).split()))
            return None

    def _report(self, what: str, why: str) -> None:
        if what not in self.skipped:
            self.skipped[what] = why
            logger.warning("%s: %s; left out (%d so far)", what, why, len(self.skipped))


def open_source(
    data: str,
    labels: Path | None,
    held_out: int,
    *,
    segmenter: str | None = None,
    min_side: int = 0,
) -> Source:
    """Training images by name: "rendered", or a folder.

    Args:
        data: "rendered", or the folder.
        labels: folder of label maps; without it and `segmenter` the images have SA-1B's files.
        held_out: how many images are kept back.
        segmenter: one of `segments.SEGMENTERS`, for images without masks.
        min_side: shortest side of an image that is used, pixels.

    Raises:
        FileNotFoundError: see `sa1b_folder` and `label_folder`.
        ValueError: fewer than two images.
    """
    if data == "rendered":
        return RenderedScenes(load_world())
    if labels is not None:
        return label_folder(Path(data), labels, held_out, min_side)
    if segmenter is not None:
        return segmented_folder(Path(data), segmenter, held_out, min_side)
    return sa1b_folder(Path(data), held_out, min_side)


def sa1b_folder(folder: Path, held_out: int, min_side: int = 0) -> FolderSource:
    """Images with a `.json` of the same name beside each, as SA-1B's archives unpack.

    Raises:
        FileNotFoundError: no such folder, or no JSON file in it.
        ValueError: two images of one name would share a file.
    """
    images = images_with(folder, lambda path: path.with_suffix(".json"))
    if not images:
        raise FileNotFoundError(
            f"no image in {folder} has an SA-1B .json of its name beside it; for label PNGs add "
            "--labels FOLDER"
        )

    def read(path: Path, size: tuple[int, int], report: Report) -> tuple[np.ndarray, np.ndarray]:
        return read_sa1b(path.with_suffix(".json"), size, report)

    return FolderSource(str(folder), images, read, held_out, min_side)


def segmented_folder(folder: Path, method: str, held_out: int, min_side: int = 0) -> FolderSource:
    """Images that need no masks: `method`, one of `segments.SEGMENTERS`, makes them.

    Raises:
        FileNotFoundError: no such folder, or no image in it.
    """

    @functools.lru_cache(maxsize=_KEPT)
    def segmented(path: Path) -> np.ndarray:
        return segment(load_image(path), method).astype(np.int32)

    def read(path: Path, _size: tuple[int, int], _report: Report) -> tuple[np.ndarray, None]:
        return segmented(path).astype(np.int64), None

    images = images_in(folder)
    if not images:
        raise FileNotFoundError(f"no image in {folder} to segment: give a folder of photographs")
    return FolderSource(f"{folder} by {method}", images, read, held_out, min_side)


def label_folder(folder: Path, labels: Path, held_out: int, min_side: int = 0) -> FolderSource:
    """Images whose masks are label PNGs (palette or grey, 255 void) at the same place in `labels`.

    FOLDER/a/0001.jpg has LABELS/a/0001.png.

    Raises:
        FileNotFoundError: no such folder, or no pair of image and label map.
        ValueError: two images of one name would share a label map.
    """

    def label_of(path: Path) -> Path:
        return labels / path.relative_to(folder).with_suffix(".png")

    def read(path: Path, size: tuple[int, int], _report: Report) -> tuple[np.ndarray, None]:
        values = read_index_png(label_of(path))
        if values.shape != size:
            raise ValueError(f"labels of {values.shape} pixels for an image of {size}")
        masks = compact(values, IGNORE)
        if masks.max() < 0:
            raise ValueError(f"{label_of(path).name} is void everywhere")
        return masks, None

    images = images_with_labels(folder, labels)
    if not images:
        raise FileNotFoundError(
            f"no image in {folder} has a label PNG at its place in {labels}: {folder}/a/0001.jpg "
            f"needs {labels}/a/0001.png"
        )
    return FolderSource(f"{folder} with {labels}", images, read, held_out, min_side)
