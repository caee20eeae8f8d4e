"""Second pass of a benchmark: predictions and truth in, results out; and both passes in one call.

    evaluate_on_pascal_voc(segmentor, root="VOCdevkit/VOC2012", protocol="sclip-voc21")["mIoU"]

Labels are in VOC's coding: 0 background, i + 1 class i, 255 ignored. Percent everywhere.
Shapes: N images, C labels (21), H×W pixels.
"""

from __future__ import annotations

import csv
import io
import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from models.protocols import PROTOCOLS, Protocol, get_protocol
from models.sclip_segmentor import SCLIPSegmentor

from .datasets.voc import IGNORE, LABELS, VocDataset
from .evaluation.arm_scores import METRICS, ArmScores, rounded
from .evaluation.arms import Arm
from .evaluation.bootstrap import paired_bootstrap
from .evaluation.predict import (
    Failure,
    predict,
    prediction_files,
    read_prediction,
)
from .evaluation.ranks import Ranks
from .evaluation.runner import ArmRunner
from .evaluation.scores import score_image
from .segmenter import Segmenter

logger = logging.getLogger(__name__)


def score(
    dataset: VocDataset,
    arms: Sequence[str],
    folder: Path,
    failed: Sequence[Failure] = (),
    *,
    background: bool = True,
) -> tuple[dict[str, ArmScores], list[Failure]]:
    """Score predictions against the truth, image by image.

    Args:
        dataset: the truth.
        arms: names.
        folder: of the predictions.
        failed: images that have no predictions.
        background: False for protocols without background words: its pixels are ignored.

    Returns:
        Scores by arm, and the images left out: `failed` and those whose labels cannot be read. An
        image counts for all arms or for none.

    Raises:
        ValueError, FileNotFoundError: a prediction is missing or damaged.
    """
    scores = {name: ArmScores(0 if background else 1) for name in arms}
    left_out = {failure.id: failure for failure in failed}
    for image_id in tqdm(dataset.ids, desc="scoring", unit="image", disable=None):
        if image_id in left_out:
            continue
        try:
            if not all(prediction_files(folder, name, image_id)[0].exists() for name in arms):
                dataset.load_image(image_id)  # one that cannot be read has no predictions
            truth = dataset.load_truth(image_id)
        except (OSError, ValueError) as error:
            left_out[image_id] = Failure(image_id, " ".join(str(error).split()))
            logger.warning("%s: %s", image_id, left_out[image_id].error)
            continue
        scored = truth.labels
        if not background:
            scored = np.where(scored == 0, np.uint8(IGNORE), scored)
        for name in arms:
            predicted, record = read_prediction(folder, name, image_id)
            try:
                image_scores = score_image(scored, predicted, truth.objects, len(LABELS))
            except ValueError as error:
                png, _ = prediction_files(folder, name, image_id)
                raise ValueError(f"{png}: {error}") from error
            scores[name].add(image_id, image_scores, record, truth)
    if len(left_out) == len(dataset.ids):
        first = min(left_out.values())
        raise ValueError(
            f"none of {len(dataset.ids)} images can be read; {first.id}: {first.error}"
        )
    return scores, [left_out[image_id] for image_id in dataset.ids if image_id in left_out]


def results(
    dataset: VocDataset,
    scores: dict[str, ArmScores],
    failed: Sequence[Failure],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """`images`, `labels`, `arms` and `differences` of the results: the same for the same files."""
    arms = {name: arm.summary() for name, arm in scores.items()}
    differences: dict[str, dict[str, Any]] = {}
    for metric in METRICS:
        counts = {name: arm.stacked(metric) for name, arm in scores.items()}
        bootstrap = paired_bootstrap(counts, resamples=resamples, seed=seed)
        for name, interval in bootstrap.arms.items():
            arms[name][f"{metric}_interval"] = [rounded(interval.low), rounded(interval.high)]
        for pair, interval in bootstrap.differences.items():
            differences.setdefault(pair, {})[metric] = {
                "difference": rounded(interval.value),
                "low": rounded(interval.low),
                "high": rounded(interval.high),
            }
    return {
        "images": {
            "listed": dataset.listed,
            "asked": len(dataset.ids),
            "scored": len(next(iter(scores.values())).rows),
            "failed": [failure._asdict() for failure in failed],
        },
        "labels": list(LABELS),
        "arms": arms,
        "differences": differences,
    }


def image_table(scores: dict[str, ArmScores]) -> str:
    """One CSV row per image and arm."""
    text = io.StringIO()
    fields = ("id", "arm", *METRICS, "aAcc", "prompts", "masks")
    writer = csv.DictWriter(text, fields, lineterminator="\n")
    writer.writeheader()
    for rows in zip(*(arm.rows for arm in scores.values()), strict=True):
        for name, row in zip(scores, rows, strict=True):
            writer.writerow({"arm": name} | row)
    return text.getvalue()


def voc_protocol(protocol: str | Protocol) -> Protocol:
    """A protocol with VOC's classes.

    Raises:
        ValueError: unknown, or for open vocabularies; the message lists those that fit.
    """
    found = get_protocol(protocol) if isinstance(protocol, str) else protocol
    if not found.class_names:
        fitting = ", ".join(name for name, p in PROTOCOLS.items() if p.class_names)
        raise ValueError(f"protocol {found.name!r} names no classes of VOC; valid: {fitting}")
    return found


def evaluate_on_pascal_voc(
    segmentor: SCLIPSegmentor | Segmenter,
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
    final = isinstance(segmentor, Segmenter)
    if not isinstance(segmentor, SCLIPSegmentor | Segmenter):
        raise ValueError(
            "segmentor must be an SCLIPSegmentor (or a subclass) or a Segmenter, got "
            f"{type(segmentor).__name__}"
        )
    dense = segmentor.segmentor if final else segmentor
    if type(dense).predict_dense is not SCLIPSegmentor.predict_dense:
        raise ValueError(
            f"{type(dense).__name__} overrides predict_dense, which knows no protocol; override "
            "dense (or scores, classify, encode), which it and the evaluation call"
        )
    dataset = VocDataset.open(root, split, limit)
    runner = ArmRunner(
        dense,
        segmentor.sam if final else None,
        voc_protocol(protocol),
        segmentor.config if final else None,
    )
    arm = Arm(name="segmentor", final=final)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(output) / "predictions" if output else Path(temporary)
        failed = predict(dataset, runner, [arm], folder, Ranks(0, 1, dense.device))
        background = bool(runner.segmentor.protocol.background)
        scores, failed = score(dataset, [arm.name], folder, failed, background=background)
    found = results(dataset, scores, failed)
    timings = scores[arm.name].timings()
    return found["arms"][arm.name] | {"images": found["images"], "timings": timings}
