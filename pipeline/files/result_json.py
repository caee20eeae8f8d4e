"""A segmentation as JSON: written, and read back without loss.

Masks and label maps are COCO run lengths. Shapes: H×W image pixels, M masks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from .atomic import read_json
from .label_png import label_dtype
from .rle import decode_rle, encode_rle

if TYPE_CHECKING:
    from ..result import Segmentation

T = TypeVar("T")


def to_json_dict(result: Segmentation) -> dict[str, Any]:
    """Everything about a result as plain JSON types.

    Raises:
        ValueError: the settings hold something that JSON has no type for.
    """
    height, width = result.size
    counts = np.bincount(result.label_map.ravel(), minlength=len(result.class_names) + 1).tolist()
    data = {
        "image": {"path": result.image_path, "height": height, "width": width},
        "class_names": list(result.class_names),
        "class_pixels": dict(zip(result.class_names, counts[1:], strict=True)),
        "unnamed_pixels": counts[0],
        "masks": [_mask_record(result, index) for index in range(len(result))],
        "label_map": _encode_labels(result.label_map),
        "dense_map": _encode_labels(result.dense_map),
        "timings": result.timings,
        "settings": result.settings,
        "versions": result.versions,
    }
    return _plain(data)


def read_result(path: str | Path, make: Callable[..., T]) -> T:
    """What `make`, as `Segmentation` does, makes of the fields that `to_json_dict` described.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not such a file, damaged, or holds what a result may not.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"result not found: '{path}'; expected a file of --save-json")
    try:
        return make(**_fields(read_json(path)))
    except (
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
        MemoryError,
        ValueError,
    ) as error:
        reason = str(error)
        if isinstance(error, KeyError):
            reason += " is missing"
        elif not isinstance(error, ValueError):
            reason = f"a value of a wrong type ({error})"
        reason = " ".join(reason.split())
        raise ValueError(f"'{path}' is no result of --save-json, or damaged: {reason}") from error


def _fields(data: Mapping[str, Any]) -> dict[str, Any]:
    image, masks, names = data["image"], data["masks"], data["class_names"]
    size = int(image["height"]), int(image["width"])
    decoded = [decode_rle(mask["segmentation"], size) for mask in masks]
    return {
        "label_map": _decode_labels(data["label_map"], size, len(names)),
        "dense_map": _decode_labels(data["dense_map"], size, len(names)),
        "masks": np.array(decoded, bool).reshape(-1, *size),
        "class_ids": np.array([mask["class_id"] for mask in masks]),
        "scores": [mask["score"] for mask in masks],
        "confidences": [mask["confidence"] for mask in masks],
        "agreement": [mask["agreement"] for mask in masks],
        "boxes": np.reshape([mask["box"] for mask in masks], (-1, 4)),
        "points": [np.reshape(mask["points"], (-1, 2)) for mask in masks],
        "sources": [mask["source"] for mask in masks],
        "class_names": names,
        "image_path": image["path"],
        **{name: data[name] for name in ("timings", "settings", "versions")},
    }


def _mask_record(result: Segmentation, index: int) -> dict[str, Any]:
    x0, y0, x1, y1 = result.boxes[index].tolist()
    return {
        "class_id": int(result.class_ids[index]),
        "class_name": result.class_name(index),
        "score": float(result.scores[index]),
        "confidence": float(result.confidences[index]),
        "agreement": float(result.agreement[index]),
        "source": result.sources[index],
        "box": [x0, y0, x1, y1],
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": int(result.masks[index].sum()),
        "points": result.points[index].tolist(),
        "segmentation": encode_rle(result.masks[index]),
    }


def _encode_labels(labels: np.ndarray) -> list[dict[str, Any]]:
    """The classes present in a label map (H, W), each with its pixels."""
    return [
        {"class_id": int(label) - 1, "segmentation": encode_rle(labels == label)}
        for label in np.unique(labels[labels > 0])
    ]


def _decode_labels(
    records: list[Mapping[str, Any]], size: tuple[int, int], classes: int
) -> np.ndarray:
    labels = np.zeros(size, label_dtype(classes))
    for record in records:
        class_id = record["class_id"]
        if type(class_id) is not int or not 0 <= class_id < classes:
            raise ValueError(f"a label map has the class {class_id!r} of {classes}")
        labels[decode_rle(record["segmentation"], size)] = class_id + 1
    return labels


def _plain(value: Any) -> Any:
    """JSON types only: arrays become lists, numpy numbers Python's, paths strings."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise ValueError(f"cannot write {type(value).__name__} as JSON: {value!r}")
