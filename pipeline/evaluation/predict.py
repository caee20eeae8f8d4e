"""First pass of a benchmark: every arm's prediction for every image, written to files.

    PREDICTIONS/<arm>/settings.json   what the predictions were made with
    PREDICTIONS/<arm>/<id>.png        class of every pixel, VOC's palette and coding, original size
    PREDICTIONS/<arm>/<id>.json       image, seconds per stage; prompts and masks of final arms

A prediction is there whole or not at all, its PNG last: a run that was interrupted, however
roughly, continues with what is missing. Predictions of other settings or images are refused.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from models.images import load_image

from ..datasets.base import Dataset
from ..files.atomic import read_json, sha256, write_atomically
from ..files.label_png import read_index_png, write_index_png
from ..files.rle import encode_rle
from .arms import Arm
from .ranks import Ranks
from .runner import ArmRunner, Prediction
from .settings import claim

logger = logging.getLogger(__name__)


class Failure(NamedTuple):
    """An image that could not be read, and why."""

    id: str
    error: str


def predict(
    dataset: Dataset,
    runner: ArmRunner,
    arms: Sequence[Arm],
    folder: Path,
    ranks: Ranks,
    *,
    overwrite: bool = False,
) -> list[Failure]:
    """Write the predictions that are missing.

    Args:
        dataset: the images; each process takes its share of them.
        runner: makes predictions.
        arms: which.
        folder: of the predictions of all arms.
        ranks: this process among all.
        overwrite: make all of them anew.

    Returns:
        The images of all processes that cannot be read, by id; the others are done.

    Raises:
        ValueError: the folder holds predictions made with other settings, or of other images.
    """
    claim(runner, arms, folder, ranks, overwrite=overwrite)
    own = dataset.ids[ranks.rank :: ranks.world]
    failed = []
    bar = tqdm(own, unit="image", disable=None if ranks.rank == 0 else True)
    for image_id in bar:
        try:
            _predict_image(dataset, runner, arms, folder, image_id)
        except _UnreadableError as error:
            failed.append(Failure(image_id, str(error)))
            logger.warning("%s: %s", image_id, error)
    return sorted(failure for part in ranks.gather(failed) for failure in part)


class _UnreadableError(Exception):
    """An image or its labels cannot be read."""


def _predict_image(
    dataset: Dataset, runner: ArmRunner, arms: Sequence[Arm], folder: Path, image_id: str
) -> None:
    path = dataset.image_path(image_id)
    try:
        seen = sha256(path)
        # A bound sees the truth as well.
        told = sha256(path, *dataset.label_paths(image_id)) if _any_oracle(arms) else seen
    except FileNotFoundError as error:
        raise _UnreadableError(
            f"not found: '{error.filename}'; is the data set complete?"
        ) from error
    except OSError as error:
        raise _UnreadableError(" ".join(str(error).split())) from error
    digests = {arm.name: told if arm.oracle else seen for arm in arms}
    missing = []
    for arm in arms:
        png, sidecar = prediction_files(folder, arm.name, image_id)
        found = _recorded_digest(sidecar) if png.exists() else None
        if found is None:
            missing.append(arm)
        elif found != digests[arm.name]:
            raise ValueError(
                f"{png} was predicted from another image or truth than {path} and its labels; "
                "choose another --output, or add --overwrite"
            )
    if not missing:
        return
    try:
        image = load_image(path)
        truth = dataset.load_truth(image_id) if _any_oracle(missing) else None
    except (OSError, ValueError) as error:
        raise _UnreadableError(" ".join(str(error).split())) from error
    for arm, prediction in runner.run(image, missing, truth):
        _write(folder, arm.name, image_id, prediction, digests[arm.name])


def _any_oracle(arms: Sequence[Arm]) -> bool:
    return any(arm.oracle for arm in arms)


def _recorded_digest(sidecar: Path) -> str | None:
    """Of what a prediction was made from; None without a sound record: it is made again."""
    try:
        return read_json(sidecar).get("sha256")
    except (FileNotFoundError, ValueError, AttributeError):
        return None


def prediction_files(folder: Path, arm: str, image_id: str) -> tuple[Path, Path]:
    """PNG and JSON of one prediction."""
    return folder / arm / f"{image_id}.png", folder / arm / f"{image_id}.json"


def _write(folder: Path, arm: str, image_id: str, prediction: Prediction, digest: str) -> None:
    png, sidecar = prediction_files(folder, arm, image_id)
    record: dict[str, Any] = {"sha256": digest, "seconds": prediction.seconds}
    if prediction.prompts is not None:
        record["prompts"] = prediction.prompts
        record["masks"] = [
            {k: v for k, v in mask.items() if k != "mask"}
            | {"segmentation": encode_rle(mask["mask"])}
            for mask in prediction.masks
        ]
    write_atomically(sidecar, json.dumps(record).encode())
    write_index_png(png, prediction.labels)


def read_prediction(folder: Path, arm: str, image_id: str) -> tuple[np.ndarray, dict[str, Any]]:
    """Labels (H, W) uint8 and the record beside them.

    Raises:
        ValueError, FileNotFoundError: missing or damaged; the message says what to do.
    """
    png, sidecar = prediction_files(folder, arm, image_id)
    try:
        return read_index_png(png, wide=True), read_json(sidecar)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"no prediction {png.name} of arm {arm!r} in {png.parent}: run again without "
            "--score-only"
        ) from error
    except ValueError as error:
        raise ValueError(f"{error}; delete {png} and run again") from error
