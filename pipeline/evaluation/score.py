"""Second pass of a benchmark: predictions and ground truth in, results out.

Labels are the data set's: 0 background, i + 1 class i. Percent everywhere.
Shapes: N images, C labels, H×W pixels.
"""

from __future__ import annotations

import csv
import io
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from models.protocols import PROTOCOLS, Protocol, get_protocol, listed

from ..datasets.base import Dataset
from .arm_scores import METRICS, ArmScores, rounded
from .bootstrap import Interval, paired_bootstrap
from .predict import Failure, prediction_files, read_prediction
from .scores import score_image

logger = logging.getLogger(__name__)


def score(
    dataset: Dataset,
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
        ValueError, FileNotFoundError: a prediction is missing or damaged, or no class occurs in
            the truth.
    """
    scores = {
        name: ArmScores(dataset.labels, ignore=dataset.ignore, background=background)
        for name in arms
    }
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
            scored = np.where(scored == 0, scored.dtype.type(dataset.ignore), scored)
        for name in arms:
            predicted, record = read_prediction(folder, name, image_id)
            try:
                found = score_image(
                    scored, predicted, truth.objects, len(dataset.labels), dataset.ignore
                )
                scores[name].add(image_id, found, record, truth)
            except ValueError as error:
                png, _ = prediction_files(folder, name, image_id)
                raise ValueError(f"{png}: {error}") from error
    if len(left_out) == len(dataset.ids):
        first = min(left_out.values())
        raise ValueError(
            f"none of {len(dataset.ids)} images can be read; {first.id}: {first.error}"
        )
    if not next(iter(scores.values())).confusion[1:].any():
        raise ValueError(
            f"no class occurs in the truth of any image, only 0 and {dataset.ignore}: the label "
            f"maps must hold the classes' numbers, 1…{len(dataset.labels) - 1}"
        )
    return scores, [left_out[image_id] for image_id in dataset.ids if image_id in left_out]


def results(
    dataset: Dataset,
    scores: dict[str, ArmScores],
    failed: Sequence[Failure],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """`images`, `labels`, `arms` and `differences` of the results: the same for the same files."""
    arms = {name: arm.summary() for name, arm in scores.items()}
    scored = len(next(iter(scores.values())).rows)
    differences: dict[str, dict[str, Any]] = {}
    for metric in METRICS:
        counts = {name: arm.stacked(metric) for name, arm in scores.items()}
        bootstrap = paired_bootstrap(counts, resamples=resamples, seed=seed)
        for name, interval in bootstrap.arms.items():
            arms[name][f"{metric}_interval"] = [rounded(interval.low), rounded(interval.high)]
            arms[name] |= _why_no_interval(f"{metric}_interval_missing", interval, scored)
        for pair, interval in bootstrap.differences.items():
            differences.setdefault(pair, {})[metric] = {
                "difference": rounded(interval.value),
                "low": rounded(interval.low),
                "high": rounded(interval.high),
            } | _why_no_interval("interval_missing", interval, scored)
    return {
        "images": {
            "listed": dataset.listed,
            "asked": len(dataset.ids),
            "scored": scored,
            "failed": [failure._asdict() for failure in failed],
        },
        "labels": list(dataset.labels),
        "arms": arms,
        "differences": differences,
    }


def _why_no_interval(key: str, interval: Interval, images: int) -> dict[str, str]:
    """The reason, where a value has no interval."""
    if math.isnan(interval.value) or not math.isnan(interval.low):
        return {}
    return {key: f"{images} images are too few: resampled, most lie on one side of the value"}


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


def scoring_protocol(protocol: str | Protocol, labels: Sequence[str]) -> Protocol:
    """A protocol whose classes are among a data set's labels.

    Raises:
        ValueError: unknown, or for other classes; the message lists those that fit.
    """
    found = get_protocol(protocol) if isinstance(protocol, str) else protocol
    if not found.class_names or not set(found.class_names) <= set(labels):
        fitting = listed(
            name for name, p in PROTOCOLS.items() if p.class_names and {*p.class_names} <= {*labels}
        )
        raise ValueError(
            f"protocol {found.name!r} does not name the classes of this data set; valid: {fitting}"
        )
    return found
