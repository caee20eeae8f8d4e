"""What results were made with: written beside them, checked before any are added.

PREDICTIONS/<arm>/settings.json of a benchmark, OUTPUT/settings.json of a folder of images.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.sam2_masks import Sam2Masks
from models.sclip_segmentor import SCLIPSegmentor

from ..files.atomic import write_atomically
from ..segmenter import versions
from .arms import Arm
from .ranks import Ranks
from .runner import ArmRunner

ROOT = Path(__file__).resolve().parents[2]
# Of this package, what predictions depend on; beside it, all of `models`.
_MODULES = (
    "config", "sam2_prompting", "masks", "points", "prompts",
    "regions", "segmenter",
)  # fmt: skip


def read_json(path: Path) -> dict[str, Any]:
    """The object of a JSON file.

    Raises:
        FileNotFoundError: it does not exist.
        ValueError: it is damaged.
    """
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error})") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path} is damaged (it holds a {type(data).__name__}, not an object)")
    return data


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
                settings = arm_settings(runner, arm, common)
                _claim_arm(arm, settings, folder, overwrite=overwrite)
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


def claim_folder(
    place: Path, settings: dict[str, Any], *, taken: bool, what: str, option: str = "--output"
) -> None:
    """Write PLACE/settings.json, or check it if results are there.

    Args:
        place: of the results.
        settings: what more of them would be made with.
        taken: some are there; what a run wrote that made nothing binds nobody.
        what: the results are called in a refusal.
        option: chose the folder.

    Raises:
        ValueError: the results were made with other settings, or nobody knows with which.
    """
    file = place / "settings.json"
    settings = json.loads(json.dumps(settings))  # as read back
    if not taken:
        write_atomically(file, (json.dumps(settings, indent=1, ensure_ascii=False) + "\n").encode())
        return
    if not file.exists():
        raise ValueError(
            f"{place} holds {what} but no settings.json: nobody knows what they were made "
            f"with; choose another {option}, or add --overwrite"
        )
    found = _flat(read_json(file))
    wanted = _flat(settings)
    other = [k for k in {**wanted, **found} if found.get(k) != wanted.get(k)]
    if other:
        changes = "; ".join(f"{k}: {_short(found.get(k))}, now {_short(wanted.get(k))}"
                            for k in other[:4])  # fmt: skip
        raise ValueError(
            f"the {what} in {place} were made with other settings ({changes}"
            f"{'; …' if len(other) > 4 else ''}); choose another {option}, or add --overwrite"
        )


def model_settings(runner: ArmRunner) -> dict[str, Any]:
    """What all arms of a run have in common."""
    segmentor = runner.segmentor
    return {
        "preset": segmentor.preset.name,
        "protocol": dataclasses.asdict(segmentor.protocol),
        "weights": fingerprints(segmentor, runner.sam),
        "device": device_name(segmentor.device),
        # The last bits of a sum depend on how it is split over threads.
        "threads": torch.get_num_threads() if segmentor.device.type == "cpu" else None,
        "code": _code(),
        "versions": versions(),
    }


def fingerprints(segmentor: SCLIPSegmentor, sam: Sam2Masks | None) -> dict[str, str | None]:
    """Fingerprints of the networks that are loaded."""
    loftup, anyup = (getattr(segmentor, name, None) for name in ("loftup", "anyup"))
    return {
        "clip": _fingerprint(segmentor.clip),
        "loftup": loftup and _fingerprint(loftup),
        "anyup": anyup and _fingerprint(anyup),
        "sam2": sam and _fingerprint(sam.model),
    }


def device_name(device: torch.device) -> str:
    """Kind of device, and which GPU: other ones round differently."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return device.type


def arm_settings(runner: ArmRunner, arm: Arm, common: dict[str, Any]) -> dict[str, Any]:
    """What decides the predictions of one arm; only the models that it uses."""
    used = {
        "clip": arm.oracle is None,
        "loftup": runner.upsampler(arm) == "loftup",
        "anyup": runner.upsampler(arm) == "anyup",
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
    for name in arms:
        for model, value in found[name]["weights"].items():
            if weights.setdefault(model, value) != value:
                raise ValueError(
                    f"the predictions of arm {name!r} in {folder} were made with other weights of "
                    f"{model} than those of the arms before it: they cannot be compared; predict "
                    "all anew with --overwrite"
                )
    return shared | {"weights": weights, "arms": {k: v["arm"] for k, v in found.items()}}


def _fingerprint(module: nn.Module) -> str:
    """SHA-256 of a network's weights, whatever file they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def _code() -> str:
    """SHA-256 of the code that makes predictions."""
    digest = hashlib.sha256()
    own = [ROOT / "pipeline" / f"{name}.py" for name in _MODULES]
    own += [
        ROOT / "pipeline" / "evaluation" / f"{name}.py" for name in ("arms", "oracles", "runner")
    ]
    for file in sorted([*ROOT.glob("models/**/*.py"), *own]):
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
