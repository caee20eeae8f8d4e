"""PREDICTIONS/<arm>/settings.json: what each arm's predictions were made with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..config import FINAL_FIELDS
from ..files.atomic import read_json
from ..files.settings import claim_folder
from ..record import environment
from .arms import Arm
from .ranks import Ranks
from .runner import ArmRunner

_SHARED = ("preset", "protocol", "device", "threads", "code", "versions")


def claim(
    runner: ArmRunner, arms: Sequence[Arm], folder: Path, ranks: Ranks, *, overwrite: bool
) -> None:
    """Write what each arm is made with, or check it against what its folder was made with.

    Raises:
        ValueError: the folder holds predictions made with other settings.
    """
    problem = None
    if ranks.rank == 0:
        place = environment(runner.networks)
        try:
            for arm in arms:
                _claim_arm(arm, runner.record(arm) | place, folder, overwrite=overwrite)
        except (ValueError, OSError) as error:
            problem = " ".join(str(error).split())
    problem = ranks.gather(problem)[0]
    if problem:
        raise ValueError(problem)


def _claim_arm(arm: Arm, settings: dict[str, Any], folder: Path, *, overwrite: bool) -> None:
    place = folder / arm.name
    for leftover in place.glob(".*.tmp"):  # of a process that was killed while it wrote
        leftover.unlink()
    if overwrite:
        for old in [*place.glob("*.png"), *place.glob("*.json")]:
            old.unlink()
    claim_folder(place, settings, taken=any(place.glob("*.png")), what="predictions")


def recorded_settings(folder: Path, arms: Sequence[str]) -> dict[str, Any]:
    """What predictions were made with: what the arms share, `weights`, and settings of `arms`.

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
    shared = _shared(found, folder)
    weights: dict[str, Any] = {}
    for name in arms:
        for model, value in found[name]["weights"].items():
            if weights.setdefault(model, value) != value:
                raise ValueError(
                    f"the predictions of arm {name!r} in {folder} were made with other weights of "
                    f"{model} than those of the arms before it: they cannot be compared; predict "
                    "all anew with --overwrite"
                )
    return shared | {"weights": weights, "arms": {k: _of_arm(v) for k, v in found.items()}}


def _shared(found: dict[str, dict[str, Any]], folder: Path) -> dict[str, Any]:
    first, *others = found
    shared = {key: found[first].get(key) for key in _SHARED}
    for name in others:
        for key, value in shared.items():
            if found[name].get(key) != value:
                raise ValueError(
                    f"the predictions of arms {first!r} and {name!r} in {folder} differ in more "
                    f"than the arm ({key}): they cannot be compared; predict both anew with "
                    "--overwrite"
                )
    return shared


def _of_arm(record: dict[str, Any]) -> dict[str, Any]:
    """What is the arm's own: how its dense map, and its final masks, were made."""
    own = {k: v for k, v in record.items() if k not in (*_SHARED, "weights")}
    if "oracle" in own:
        return own
    final = {k: v for k, v in own.items() if k in FINAL_FIELDS}
    return {"dense": {k: v for k, v in own.items() if k not in final}, "final": final or None}
