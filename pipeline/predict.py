"""First pass of a benchmark: every arm's prediction for every image, written to files.

    PREDICTIONS/<arm>/settings.json   what the predictions were made with
    PREDICTIONS/<arm>/<id>.png        class of every pixel, VOC's palette and coding, original size
    PREDICTIONS/<arm>/<id>.json       image, seconds per stage; prompts and masks of final arms

A prediction is there whole or not at all, its PNG last: a run that was interrupted, however
roughly, continues with what is missing. Predictions of other settings or images are refused.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from models.images import load_image

from .arms import Arm, ArmRunner, Prediction
from .distributed import Ranks
from .index_png import read_index_png, write_index_png
from .result import encode_rle, write_atomically
from .segmenter import versions
from .voc import VocDataset

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[1]


class Failure(NamedTuple):
    """An image that could not be read, and why."""

    id: str
    error: str


def predict(
    dataset: VocDataset,
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
    dataset: VocDataset, runner: ArmRunner, arms: Sequence[Arm], folder: Path, image_id: str
) -> None:
    try:
        path = dataset.image_path(image_id)
        data = path.read_bytes()
    except OSError as error:
        raise _UnreadableError(" ".join(str(error).split())) from error
    digest = hashlib.sha256(data).hexdigest()
    missing = []
    for arm in arms:
        png, sidecar = prediction_files(folder, arm.name, image_id)
        if not png.exists():
            missing.append(arm)
        elif read_json(sidecar)["image_sha256"] != digest:
            raise ValueError(
                f"{png} was predicted from another image than {path}; choose another --output, "
                "or add --overwrite"
            )
    if not missing:
        return
    try:
        image = load_image(path)
        needs_truth = any(arm.oracle for arm in missing)
        truth = dataset.load_truth(image_id) if needs_truth else None
    except (OSError, ValueError) as error:
        raise _UnreadableError(" ".join(str(error).split())) from error
    for arm, prediction in runner.run(image, missing, truth):
        _write(folder, arm.name, image_id, prediction, digest)


def prediction_files(folder: Path, arm: str, image_id: str) -> tuple[Path, Path]:
    """PNG and JSON of one prediction."""
    return folder / arm / f"{image_id}.png", folder / arm / f"{image_id}.json"


def _write(folder: Path, arm: str, image_id: str, prediction: Prediction, digest: str) -> None:
    png, sidecar = prediction_files(folder, arm, image_id)
    record: dict[str, Any] = {"image_sha256": digest, "seconds": prediction.seconds}
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
        return read_index_png(png), read_json(sidecar)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"no prediction {png.name} of arm {arm!r} in {png.parent}: run again without "
            "--score-only"
        ) from error
    except ValueError as error:
        raise ValueError(f"{error}; delete {png} and run again") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file.

    Raises:
        FileNotFoundError: it does not exist.
        ValueError: it is damaged.
    """
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error})") from error


def claim(
    runner: ArmRunner, arms: Sequence[Arm], folder: Path, ranks: Ranks, *, overwrite: bool
) -> None:
    """Write what each arm is made with, or check it against what its folder was made with.

    Raises:
        ValueError: the folder holds predictions made with other settings.
    """
    problem = None
    if ranks.rank == 0:
        common = model_settings(runner)
        try:
            for arm in arms:
                settings = json.loads(json.dumps(arm_settings(runner, arm, common)))  # as read back
                _claim_arm(arm, settings, folder, overwrite=overwrite)
        except (ValueError, OSError) as error:
            problem = " ".join(str(error).split())
    problem = ranks.gather(problem)[0]
    if problem:
        raise ValueError(problem)


def _claim_arm(arm: Arm, settings: dict[str, Any], folder: Path, *, overwrite: bool) -> None:
    place = folder / arm.name
    file = place / "settings.json"
    for leftover in place.glob(".*.tmp"):  # of a process that was killed while it wrote
        leftover.unlink()
    if overwrite:
        for old in [*place.glob("*.png"), *place.glob("*.json")]:
            old.unlink()
    if not any(place.glob("*.png")):  # what a run wrote that made nothing binds nobody
        write_atomically(file, (json.dumps(settings, indent=1, ensure_ascii=False) + "\n").encode())
        return
    if not file.exists():
        raise ValueError(
            f"{place} holds predictions but no settings.json: nobody knows what they were made "
            "with; choose another --output, or add --overwrite"
        )
    found = _flat(read_json(file))
    wanted = _flat(settings)
    other = [k for k in {**wanted, **found} if found.get(k) != wanted.get(k)]
    if other:
        changes = "; ".join(f"{k}: {_short(found.get(k))}, now {_short(wanted.get(k))}"
                            for k in other[:4])  # fmt: skip
        raise ValueError(
            f"the predictions in {place} were made with other settings ({changes}"
            f"{'; …' if len(other) > 4 else ''}); choose another --output, or add --overwrite"
        )


def model_settings(runner: ArmRunner) -> dict[str, Any]:
    """What all arms of a run have in common."""
    segmentor = runner.segmentor
    loftup = getattr(segmentor, "loftup", None)
    return {
        "preset": segmentor.preset.name,
        "protocol": dataclasses.asdict(segmentor.protocol),
        "weights": {
            "clip": _fingerprint(segmentor.clip),
            "loftup": loftup and _fingerprint(loftup),
            "sam2": runner.sam and _fingerprint(runner.sam.model),
        },
        "device": segmentor.device.type,
        # The last bits of a sum depend on how it is split over threads.
        "threads": torch.get_num_threads() if segmentor.device.type == "cpu" else None,
        "code": _code(),
        "versions": versions(),
    }


def arm_settings(runner: ArmRunner, arm: Arm, common: dict[str, Any]) -> dict[str, Any]:
    """What decides the predictions of one arm; only the models that it uses."""
    used = {
        "clip": arm.oracle is None,
        "loftup": runner.uses_loftup(arm),
        "sam2": arm.needs_sam,
    }
    weights = {name: value for name, value in common["weights"].items() if used[name]}
    return common | {"weights": weights, "arm": runner.settings(arm)}


def recorded_settings(folder: Path, arms: Sequence[str]) -> dict[str, Any]:
    """What predictions were made with: what the arms share, `weights`, and `arms` by name.

    Raises:
        FileNotFoundError: an arm has no predictions.
        ValueError: the arms' predictions come from different models, protocols or code.
    """
    found = {}
    for name in arms:
        try:
            found[name] = read_json(folder / name / "settings.json")
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"no predictions of arm {name!r} in {folder}: run again without --score-only"
            ) from error
    first, shared = arms[0], {}
    for key, value in found[first].items():
        if key in ("arm", "weights"):
            continue
        for name in arms:
            if found[name].get(key) != value:
                raise ValueError(
                    f"the predictions of arms {first!r} and {name!r} in {folder} differ in more "
                    f"than the arm ({key}): they cannot be compared; predict both anew with "
                    "--overwrite"
                )
        shared[key] = value
    weights: dict[str, Any] = {}
    for settings in found.values():
        weights |= settings["weights"]
    return shared | {"weights": weights, "arms": {k: v["arm"] for k, v in found.items()}}


def _fingerprint(module: nn.Module) -> str:
    """SHA-256 of a network's weights, whatever file they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def _code() -> str:
    """SHA-256 of the code that makes predictions; its subpackages train and report."""
    digest = hashlib.sha256()
    for file in sorted([*ROOT.glob("models/*.py"), *ROOT.glob("pipeline/*.py")]):
        digest.update(str(file.relative_to(ROOT)).encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by dots."""
    flat = {}
    for key, item in value.items():
        if isinstance(item, dict):
            flat |= _flat(item, f"{prefix}{key}.")
        else:
            flat[prefix + key] = item
    return flat


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:39] + "…"
