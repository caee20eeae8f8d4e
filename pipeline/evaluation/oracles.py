"""Oracles: what SAM 2 gives when it is told the truth instead of CLIP's answer.

Labels: 0 background, `ignore` (255 unless said) void, uint8 or uint16. Points are (x, y) pixels.
Shapes: H×W pixels of the original image.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from models.presets import AutomaticMasks
from models.sam2_masks import Sam2Masks

from ..config import PipelineConfig
from ..datasets.voc import Truth
from ..masks import resolve_label_map
from ..points import pole
from ..regions import Region
from ..sam2_prompting import masks_from_prompts
from .metrics import IGNORE


def true_regions(truth: Truth, ignore: int = IGNORE) -> list[tuple[int, Region]]:
    """Label and pixels of every object; without an object map, of every class in the image."""
    labels = truth.labels
    groups = labels if truth.objects is None else truth.objects
    found = []
    for number in np.unique(groups).tolist():
        if number in (0, ignore):
            continue
        inside = (groups == number) & (labels != ignore) & (labels != 0)
        if inside.any():
            label = int(np.bincount(labels[inside]).argmax())
            found.append((label, Region.from_mask(inside & (labels == label))))
    return found


def masks_from_true_points(
    sam: Sam2Masks, truth: Truth, config: PipelineConfig, ignore: int = IGNORE
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """One click in the middle of every true object, with its true class.

    SAM 2 is told the point alone; of its three masks the one it trusts most is taken. Where masks
    overlap, the higher predicted IoU wins.

    Args:
        sam: with the image set.
        truth: labels and objects.
        config: passed on to the decoding.
        ignore: void.

    Returns:
        (H, W) labels, and the masks as in `pipeline.evaluation.runner.Prediction`.
    """
    size = truth.labels.shape
    prompts = []
    for label, region in true_regions(truth, ignore):
        point = pole(region, np.ones(region.mask.shape, np.float32))
        prompts.append({"point": point, "label": label})
    found = list(masks_from_prompts(sam, prompts, size, config))
    regions = [f["mask_region"] for f in found]
    labels = resolve_label_map(
        regions, [f["label"] - 1 for f in found], [f["score"] for f in found], None, size
    )
    masks = [
        {
            "label": f["label"],
            "score": f["score"],
            "source": f["source"],
            "points": [list(f["point"])],
            "mask": region.paste(size),
        }
        for f, region in zip(found, regions, strict=True)
    ]
    return labels, masks


def masks_by_truth(
    sam: Sam2Masks,
    image: np.ndarray,
    labels: np.ndarray,
    settings: AutomaticMasks,
    ignore: int = IGNORE,
) -> np.ndarray:
    """SAM 2's automatic masks, each given the label that most of its pixels truly have.

    Pixels in no mask are background; where masks overlap, the smallest decides.

    Args:
        sam: any image may be set.
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) truth.
        settings: of the automatic masks.
        ignore: void, which has no vote.

    Returns:
        (H, W), of the truth's type.
    """
    predicted = np.zeros_like(labels)
    masks = [record["segmentation"] for record in sam.automatic(image, settings)]
    for mask in sorted(masks, key=np.count_nonzero, reverse=True):
        inside = labels[mask]
        counts = np.bincount(inside[inside != ignore])
        if len(counts):
            predicted[mask] = counts.argmax()
    return predicted
