"""What a segmentation found, and its files.

Shapes: H×W image pixels, M masks, K classes. Points are (x, y) and boxes (x0, y0, x1, y1), in
pixels of the original image. In label maps 0 is "nothing named" and i + 1 is `class_names[i]`.
"""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from .files.atomic import write_json
from .files.label_png import label_dtype, write_index_png
from .files.result_json import read_result, to_json_dict
from .files.rle import decode_rle as decode_rle  # users take these two from here
from .files.rle import encode_rle as encode_rle
from .objects import SegmentedObject

if TYPE_CHECKING:
    import supervision

    from models.images import ImageSource


@dataclass(frozen=True, kw_only=True, eq=False)
class Segmentation:
    """Masks with classes, and the label maps of one image.

    Attributes:
        label_map: (H, W) uint8, or uint16 of more than 254 classes, the final answer: 0 nothing
            named, i + 1 is `class_names[i]`.
        dense_map: (H, W), same type and coding: what CLIP said before SAM 2.
        masks: (M, H, W) bool; they may overlap.
        class_ids: (M,) int64 index into `class_names`.
        scores: (M,) float32 in 0…1, SAM 2's predicted IoU.
        confidences: (M,) float32 in 0…1, mean class probability of the prompt's region.
        agreement: (M,) float32 in 0…1, overlap of the mask with the prompt's region.
        boxes: (M, 4) float32 XYXY, far edges excluded.
        points: M arrays (n, 2) float32, the prompts' points (x, y).
        sources: M words, where a mask is from: "sam2", or "region" for CLIP's own region.
        class_names: K names.
        probs: (K, H, W) or, with a background, (K + 1, H, W) float in 0…1, the background last: how
            probable each class is for CLIP. None unless asked for; no file of the result has it.
        image: (H, W, 3) uint8 RGB, if it is at hand; no file of the result has it.
        image_path: where the image is from, if it was a file.
        timings: seconds per stage.
        settings: what it was made with.
        versions: of the libraries, by name.
    """

    label_map: np.ndarray
    dense_map: np.ndarray
    masks: np.ndarray
    class_ids: np.ndarray
    scores: np.ndarray
    confidences: np.ndarray
    agreement: np.ndarray
    boxes: np.ndarray
    points: tuple[np.ndarray, ...]
    sources: tuple[str, ...]
    class_names: tuple[str, ...]
    probs: np.ndarray | None = None
    image: np.ndarray | None = None
    image_path: str | None = None
    timings: dict[str, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        def put(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        if isinstance(self.class_names, str) or {*map(type, self.class_names)} - {str}:
            raise ValueError(f"class_names must be a list of names, got {self.class_names!r}")
        put("class_names", tuple(self.class_names))
        put("sources", tuple(self.sources))
        put("class_ids", _class_ids(self.class_ids, len(self.class_names)))
        for name in ("scores", "confidences", "agreement", "boxes"):
            put(name, np.asarray(getattr(self, name), np.float32))
        put("points", tuple(np.asarray(points, np.float32) for points in self.points))

        for name in ("label_map", "dense_map"):
            put(name, _label_map(name, getattr(self, name), len(self.class_names)))
        size = self.label_map.shape
        _expect("dense_map", self.dense_map.shape, size)
        if self.probs is not None:
            background = len(self.probs) == len(self.class_names) + 1
            _expect("probs", self.probs.shape, (len(self.class_names) + background, *size))
        if self.image is not None:
            _expect("image", self.image.shape, (*size, 3))
        if self.masks.dtype != bool:
            raise ValueError(f"masks must be bool, got {self.masks.dtype}; threshold them first")
        count = len(self.masks)
        _expect("masks", self.masks.shape, (count, *size))
        _expect("class_ids", self.class_ids.shape, (count,))
        _expect("boxes", self.boxes.shape, (count, 4))
        for name in ("points", "sources"):
            _expect(name, (len(getattr(self, name)),), (count,))
        for name in ("scores", "confidences", "agreement"):
            values = getattr(self, name)
            _expect(name, values.shape, (count,))
            if not ((values >= 0) & (values <= 1)).all():  # also refuses NaN
                raise ValueError(f"{name} must lie in 0…1, got {values.tolist()}")
        x0, y0, x1, y1 = self.boxes.T
        if not (np.isfinite(self.boxes).all() and (x0 <= x1).all() and (y0 <= y1).all()):
            raise ValueError(f"boxes must be finite XYXY corners, got {self.boxes.tolist()}")
        for points in self.points:
            if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
                raise ValueError(f"points of a mask must be (n, 2) finite (x, y), got {points}")

    @classmethod
    def empty(
        cls,
        size: tuple[int, int],
        class_names: Sequence[str],
        *,
        dense_map: np.ndarray | None = None,
        image_path: str | None = None,
        timings: dict[str, float] | None = None,
    ) -> Segmentation:
        """Nothing found in an image of `size` (H, W)."""
        nothing, none = np.zeros(size, label_dtype(len(class_names))), np.zeros(0)
        return cls(
            label_map=nothing,
            dense_map=nothing.copy() if dense_map is None else dense_map,
            masks=np.zeros((0, *size), bool),
            class_ids=none,
            scores=none,
            confidences=none,
            agreement=none,
            boxes=np.zeros((0, 4)),
            points=(),
            sources=(),
            class_names=tuple(class_names),
            image_path=image_path,
            timings=timings or {},
        )

    def __len__(self) -> int:
        """Number of masks."""
        return len(self.masks)

    def __getitem__(self, index: int) -> SegmentedObject:
        """Mask `index`, from the end if negative, with all that belongs to it."""
        return SegmentedObject(
            mask=self.masks[index],
            class_id=int(self.class_ids[index]),
            class_name=self.class_name(index),
            score=float(self.scores[index]),
            confidence=float(self.confidences[index]),
            box=self.boxes[index],
            points=self.points[index],
            source=self.sources[index],
        )

    def __iter__(self) -> Iterator[SegmentedObject]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        names = Counter(found.class_name for found in self)
        counts = [f"{n} {name}" for name, n in names.most_common(8)] + ["…"] * (len(names) > 8)
        image = f"{self.image_path or 'an image'}, {self.size[1]}×{self.size[0]}"
        limits = f"; {self.limits.partition(':')[0]}" if self.limits else ""
        return f"<Segmentation of {image}: {', '.join(counts) or 'nothing'}{limits}>"

    def class_name(self, index: int) -> str:
        """Class name of mask `index`."""
        return self.class_names[self.class_ids[index]]

    @property
    def limits(self) -> str:
        """What must be said of it: that its models know other pictures only. Mostly ""."""
        return str(self.settings.get("limits", ""))

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the image."""
        return self.label_map.shape

    def picture(
        self, image: ImageSource | None = None, *, tags: bool = True, points: bool = True
    ) -> np.ndarray:
        """(h, w, 3) uint8 RGB: masks, image, dense map and legend, as the program draws them.

        `image` is what was segmented; None takes the result's own, or the file `image_path`.
        `tags` and `points` are whether class names and prompt points lie on the masks.

        Raises:
            FileNotFoundError, ValueError: there is no image, or one of another size.
        """
        from .drawing.picture import draw_segmentation

        return draw_segmentation(self._pixels(image), self, tags=tags, points=points)

    def overlay(
        self, image: ImageSource | None = None, *, tags: bool = True, points: bool = True
    ) -> np.ndarray:
        """(H, W, 3) uint8 RGB: the masks over the image at its own size; see `picture`."""
        from .drawing.overlay import draw_overlay

        return draw_overlay(self._pixels(image), self, self.size, tags=tags, points=points)

    def _pixels(self, image: ImageSource | None) -> np.ndarray:
        from models.images import load_image

        known = [i for i in (image, self.image, self.image_path) if i is not None]
        if known:
            return load_image(known[0])
        raise ValueError("this result does not know its image; give it: image=...")

    def save(
        self,
        path: str | Path,
        image: ImageSource | None = None,
        *,
        tags: bool = True,
        points: bool = True,
    ) -> None:
        """Write `picture(…)` as PNG, JPEG or WebP, by the end of the name.

        Raises:
            OSError, ValueError: see `picture`; or another ending, or it cannot be written.
        """
        from .drawing.layout import save_array

        save_array(path, self.picture(image, tags=tags, points=points))

    def show(self, image: ImageSource | None = None) -> None:
        """Open `picture(image)` in the system's viewer."""
        Image.fromarray(self.picture(image)).show()

    def _repr_png_(self) -> bytes | None:
        """The picture in a notebook; None, which shows `repr`, if the image is not at hand."""
        data = io.BytesIO()
        with contextlib.suppress(OSError, ValueError):
            Image.fromarray(self.picture()).save(data, format="PNG")
        return data.getvalue() or None

    def to_json_dict(self) -> dict[str, Any]:
        """Everything as plain JSON types; masks and label maps as COCO run lengths."""
        return to_json_dict(self)

    def save_json(self, path: str | Path) -> None:
        """Write `to_json_dict()`.

        Raises:
            OSError: the file cannot be written.
        """
        write_json(path, self.to_json_dict())

    @classmethod
    def load_json(cls, path: str | Path) -> Segmentation:
        """Read what `save_json` wrote.

        Raises:
            FileNotFoundError, ValueError: see `pipeline.files.result_json.read_result`.
        """
        return read_result(path, cls)

    def to_supervision(self) -> supervision.Detections:
        """The masks as `supervision.Detections`, for that package's drawing, tracking and metrics.

        `confidence` is the score; `data` has `class_name` and `class_confidence`.

        Raises:
            ImportError: the package is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise ImportError(
                "to_supervision() needs the package supervision: pip install supervision"
            ) from error
        names = np.array([found.class_name for found in self], dtype=str)
        return supervision.Detections(
            xyxy=self.boxes,
            mask=self.masks,
            confidence=self.scores,
            class_id=self.class_ids,
            data={"class_name": names, "class_confidence": self.confidences},
        )

    def save_label_map(self, path: str | Path) -> None:
        """Write the label map as a PNG: pixel values are the labels.

        It has VOC's palette; above 254 classes it is grey, of 16 bits.

        Raises:
            OSError: the file cannot be written.
        """
        write_index_png(path, self.label_map)


def _class_ids(values: object, classes: int) -> np.ndarray:
    ids = np.asarray(values)
    if ids.size and not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"class_ids must be integers, got {ids.dtype}")
    if ids.size and not (ids.min() >= 0 and ids.max() < classes):
        raise ValueError(f"class_ids must lie in 0…{classes - 1}, got {ids.tolist()}")
    return ids.astype(np.int64)


def _label_map(name: str, labels: np.ndarray, classes: int) -> np.ndarray:
    dtype = np.dtype(label_dtype(classes))
    if labels.dtype not in (dtype, np.uint16) or labels.ndim != 2 or 0 in labels.shape:
        raise ValueError(
            f"{name} must be {dtype} of shape (H, W) for {classes} classes, got {labels.dtype} "
            f"{labels.shape}"
        )
    if (highest := int(labels.max())) > classes:
        raise ValueError(f"{name} has label {highest}, but the {classes} classes end at {classes}")
    return labels.astype(dtype, copy=False)


def _expect(name: str, actual: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if tuple(actual) != tuple(expected):
        raise ValueError(f"{name} must have shape {tuple(expected)}, got {tuple(actual)}")
