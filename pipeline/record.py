"""What a result was made with: one record, in results, folders of results and predictions alike.

`made_with` decides a result as far as its user does; `environment` is what else may change its last
bits: code, versions, device.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import platform
from pathlib import Path
from typing import Any

import torch

from models.dense import DENSE_FIELDS, DenseConfig
from models.networks import Networks
from models.vocabulary import Vocabulary

ROOT = Path(__file__).resolve().parents[1]
_PACKAGES = ("torch", "open_clip_torch", "sam2", "numpy")
# Rooms of the pipeline that make no prediction; a new room counts until it is named here.
_OTHER_ROOMS = ("app", "drawing", "exports", "training", "world")
_OTHER_EVALUATION = (
    "report", "probe", "bootstrap", "arm_scores", "metrics", "object_metrics", "scores",
)  # fmt: skip


def made_with(
    networks: Networks, config: DenseConfig, words: Vocabulary | None = None, *, final: bool
) -> dict[str, Any]:
    """Models, settings and words, as JSON types.

    Args:
        networks: their weights are told by fingerprints, whatever files they came from.
        config: resolved settings.
        words: what was asked for; None where the protocol says it.
        final: of final masks, not of a dense map.
    """
    values = config.to_dict()
    if not final:
        values = {k: v for k, v in values.items() if k in (*DENSE_FIELDS, "upsampler_code")}
    if config.upsampler != "loftup":
        values |= {"loftup_share": None, "text_space": None}  # they say nothing
    values |= dict.fromkeys(config.unused())
    record: dict[str, Any] = {
        "preset": networks.preset.name,
        "weights": networks.fingerprints(config, sam=final),
        **values,
    }
    if words is not None:
        record |= {
            "vocabulary": [list(group) for group in words.words],
            "background": list(words.background or ()),
            "not_words": [list(group) for group in words.not_words],
            "thresholds": words.own_thresholds,
        }
    return record


def environment(networks: Networks) -> dict[str, Any]:
    """Device, threads, code and versions, as JSON types."""
    device = networks.device
    return {
        "device": device_name(device),
        # The last bits of a sum depend on how it is split over threads.
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
        "code": code(),
        "versions": versions(),
    }


def device_name(device: torch.device) -> str:
    """Kind of device, and which GPU: other ones round differently."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return device.type


def versions() -> dict[str, str]:
    """Versions of Python and the packages that a result depends on."""
    return {"python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in _PACKAGES
    }


@functools.cache
def code(root: Path = ROOT) -> str:
    """SHA-256 of the source files that can change a prediction, in packages too."""
    digest = hashlib.sha256()
    for file in prediction_files(root):
        digest.update(file.relative_to(root).as_posix().encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def prediction_files(root: Path = ROOT) -> list[Path]:
    """All of `models`, and of `pipeline` all but pictures, exports, scores and training."""
    found = list((root / "models").rglob("*.py"))
    for file in (root / "pipeline").rglob("*.py"):
        room, *rest = file.relative_to(root / "pipeline").with_suffix("").parts
        scoring = room == "evaluation" and rest[0] in _OTHER_EVALUATION
        if room not in _OTHER_ROOMS and not scoring:
            found.append(file)
    return sorted(found)
