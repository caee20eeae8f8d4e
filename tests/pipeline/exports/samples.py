"""Masks that are hard to export, and results made of them."""

import cv2
import numpy as np

from pipeline.result import Segmentation

H, W = 40, 60
NAMES = ("dog", 'the "big" cat: #1', "ソファー 🛋, sofá", "it's\\x")


def masks() -> dict[str, np.ndarray]:
    """(H, W) bool masks by what is hard about them."""
    y, x = np.mgrid[:H, :W]
    made = {name: np.zeros((H, W), bool) for name in ("pixel", "row", "column", "diagonal")}
    made["pixel"][7, 9] = True
    made["row"][0, 9:30] = True
    made["column"][7:20, W - 1] = True
    made["diagonal"][range(10, 20), range(10, 20)] = True
    made["disk"] = (y - 18) ** 2 + (x - 30) ** 2 < 200
    made["hole"] = made["disk"] & ((y - 18) ** 2 + (x - 30) ** 2 > 60)
    made["image"] = np.ones((H, W), bool)
    parts = np.zeros((H, W), bool)
    parts[3:30, 5:40] = True
    parts[6:15, 10:22] = False  # a hole, with a part in it, and a second hole
    parts[9:12, 14:18] = True
    parts[20:24, 30:33] = False
    parts[32:38, 45:58] = True
    made["parts"] = parts
    noise = np.random.default_rng(0).random((H, W))
    made["blobs"] = cv2.GaussianBlur(noise, (0, 0), 1.5) > 0.5
    return made


def result(*found: tuple[np.ndarray, int, float], **changes) -> Segmentation:
    """A result of masks with classes and scores; where they overlap, the later has the pixels."""
    label_map = np.zeros((H, W), np.uint8)
    boxes = []
    for mask, class_id, _ in found:
        label_map[mask] = class_id + 1
        y, x = np.nonzero(mask)
        boxes.append([x.min(), y.min(), x.max() + 1, y.max() + 1] if len(x) else [0, 0, 0, 0])
    fields = dict(
        label_map=label_map,
        dense_map=np.roll(label_map, 3, axis=1),
        masks=np.array([mask for mask, _, _ in found], bool).reshape(-1, H, W),
        class_ids=np.array([class_id for _, class_id, _ in found], int),
        scores=[score for _, _, score in found],
        confidences=[0.25] * len(found),
        agreement=[0.5] * len(found),
        boxes=np.reshape(boxes, (-1, 4)),
        points=[[[1, 2]]] * len(found),
        sources=["sam2"] * len(found),
        class_names=NAMES,
        image_path="pictures/sofá.jpg",
    )
    return Segmentation(**(fields | changes))


def all_masks() -> Segmentation:
    """Every hard mask once, by all classes in turn."""
    hard = masks().values()
    return result(*((mask, i % len(NAMES), 0.1 * i) for i, mask in enumerate(hard)))


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return np.sum(one & other) / np.sum(one | other)
