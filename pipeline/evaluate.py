"""The door to scoring on PASCAL VOC.

evaluate_on_pascal_voc(segmentor, root="VOCdevkit/VOC2012", protocol="sclip-voc21")["mIoU"]
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from models.dense import Dense
from models.protocols import Protocol
from models.sclip_segmentor import SCLIPSegmentor

from .datasets.voc import VocDataset
from .evaluation.arms import Arm
from .evaluation.predict import predict
from .evaluation.ranks import Ranks
from .evaluation.runner import ArmRunner
from .evaluation.score import results, score, scoring_protocol
from .segmenter import Segmenter


def evaluate_on_pascal_voc(
    segmentor: Dense | Segmenter,
    root: str | os.PathLike,
    split: str = "val",
    *,
    protocol: str | Protocol = "sclip-voc21",
    limit: int | None = None,
    output: str | os.PathLike | None = None,
) -> dict[str, Any]:
    """mIoU and the rest of one segmentor, as it is set up, on PASCAL VOC.

    Args:
        segmentor: an `SCLIPSegmentor` (or `LoftUpSCLIPSegmentor`, or one's own subclass) for its
            dense maps, or a `Segmenter` for its final masks.
        root: VOC2012's folder, or one of its layout.
        split: train, val, trainval, another list in ImageSets/Segmentation, or a file of ids.
        protocol: words, windows and thresholds; replaces the segmentor's own. `rendered-voc` for
            rendered scenes.
        limit: only the first images of the split.
        output: folder for the predictions, where an interrupted evaluation continues; None keeps
            nothing.

    Returns:
        `mIoU`, `boundary_IoU`, `edge_mIoU`, `mAcc`, `aAcc` in percent, `per_class` (name → IoU),
        `sizes`, `confusion`, 95 % intervals (`mIoU_interval`, …), `prompts` of a `Segmenter`,
        `timings`, and `images`: how many were listed, asked for and scored, and those that failed.

    Raises:
        ValueError, FileNotFoundError: no such data set, protocol or segmentor; nothing readable;
            or `output` holds predictions made with other settings.
    """
    if not isinstance(segmentor, Dense | Segmenter):
        raise ValueError(
            "segmentor must be an SCLIPSegmentor (or a subclass) or a Segmenter, got "
            f"{type(segmentor).__name__}"
        )
    final = isinstance(segmentor, Segmenter)
    dense = segmentor.dense if isinstance(segmentor, Segmenter) else segmentor
    own = getattr(type(dense), "predict_dense", None)
    if own not in (None, SCLIPSegmentor.predict_dense):
        raise ValueError(
            f"{type(dense).__name__} overrides predict_dense, which knows no protocol; override "
            "dense (or scores, classify, encode), which it and the evaluation call"
        )
    dataset = VocDataset.open(os.fspath(root), split, limit)
    runner = ArmRunner(
        dense,
        scoring_protocol(protocol, dataset.labels),
        dataset.labels,
        ignore=dataset.ignore,
        config=segmentor.config if isinstance(segmentor, Segmenter) else None,
    )
    arm = Arm(name="segmentor", final=final)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(output) / "predictions" if output else Path(temporary)
        failed = predict(dataset, runner, [arm], folder, Ranks(0, 1, dense.device))
        background = bool(runner.dense.protocol.background)
        scores, failed = score(dataset, [arm.name], folder, failed, background=background)
    found = results(dataset, scores, failed)
    timings = scores[arm.name].timings()
    return found["arms"][arm.name] | {"images": found["images"], "timings": timings}
