"""The files of a benchmark: scores what was predicted and writes all that is told about it.

OUTPUT/results.json   settings, arms, differences; the same for the same predictions
OUTPUT/confusion.npz  of each arm, where it is too large for results.json
OUTPUT/timings.json   seconds per stage and arm
OUTPUT/images.csv     one row per image and arm
OUTPUT/report.md, OUTPUT/plots/*.png
"""

from __future__ import annotations

import io
import json
import logging
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...datasets.base import Dataset
from ...drawing.layout import save_array
from ...files.atomic import write_atomically
from ...record import ROOT
from ..arm_scores import LARGE, ArmScores
from ..predict import Failure, read_prediction
from ..published import published, warning
from ..score import image_table, results, score
from ..settings import recorded_settings
from .contact_sheet import Row, draw_contact_sheet, pick
from .plots import save_plots
from .report import markdown

logger = logging.getLogger(__name__)


def write_outputs(
    dataset: Dataset,
    arms: Sequence[str],
    output: Path,
    failed: Sequence[Failure],
    *,
    baseline: str,
    resamples: int,
    settings: dict[str, Any],
    processes: int | None = None,
) -> dict[str, Any]:
    """Score the predictions in OUTPUT/predictions and write the files above.

    Args:
        dataset: the truth.
        arms, output, failed: names, the folder, and the images without predictions.
        baseline: the arm that the report and the pictures compare with.
        resamples: of the bootstrap.
        settings: what is scored, for the report; what the predictions were made with is read from
            beside them.
        processes: that shared the predictions; None if they were there.

    Returns:
        What results.json holds.

    Raises:
        ValueError, FileNotFoundError: a prediction is missing or damaged, predictions are not
            comparable, or no image is readable.
    """
    made_with = recorded_settings(output / "predictions", arms)
    versions = made_with.pop("versions")
    background = bool(made_with["protocol"]["background"])
    scores, failed = score(dataset, arms, output / "predictions", failed, background=background)
    settings = settings | {"baseline": baseline, "resamples": resamples} | made_with
    data = {"settings": settings, "versions": versions, "commit": commit()}
    data |= results(dataset, scores, failed, resamples=resamples)
    data["images"]["official"] = dataset.official_size
    data["published"] = published(settings, data["images"], data["arms"])
    for entry in data["published"]:
        if entry["off"]:
            logger.warning("%s", warning(entry))
    machine = {"system": platform.system(), "processor": processor(), "cores": os.cpu_count()}
    if processes is not None:
        machine["processes"] = processes
    timings = {"arms": {name: arm.timings() for name, arm in scores.items()}, "machine": machine}
    for name, content in (("results", data), ("timings", timings)):
        write_atomically(output / f"{name}.json", readable_json(content).encode())
    if len(dataset.labels) > LARGE:
        matrices, of_arm = io.BytesIO(), {name: arm.confusion for name, arm in scores.items()}
        np.savez_compressed(matrices, allow_pickle=False, **of_arm)
        write_atomically(output / "confusion.npz", matrices.getvalue())
    write_atomically(output / "images.csv", image_table(scores).encode())
    write_atomically(output / "report.md", markdown(data, timings).encode())
    for old in (output / "plots").glob("*.png"):  # of arms that are not among these
        old.unlink()
    save_plots(output / "plots", data, timings)
    for name in arms:
        if name != baseline:
            _sheet(dataset, scores, output, name, data)
    return data


def _sheet(
    dataset: Dataset, scores: dict[str, ArmScores], output: Path, arm: str, data: dict[str, Any]
) -> None:
    """The images that an arm wins and loses most against the baseline."""
    baseline, labels = data["settings"]["baseline"], data["labels"]
    own, base = ({row["id"]: row["mIoU"] for row in scores[n].rows} for n in (arm, baseline))
    wins, losses = pick(own, base)
    folder = output / "predictions"
    rows = [
        Row(
            id=image_id,
            image=dataset.load_image(image_id),
            truth=dataset.load_truth(image_id).labels,
            baseline=read_prediction(folder, baseline, image_id)[0],
            other=read_prediction(folder, arm, image_id)[0],
            baseline_score=base[image_id],
            other_score=own[image_id],
        )
        for image_id in [*wins, *reversed(losses)]
    ]
    if rows:  # else the two never differ
        sheet = draw_contact_sheet(rows, arm=arm, baseline=baseline, labels=labels)
        save_array(output / "plots" / f"images_{arm}.png", sheet)


def processor() -> str:
    """The processor's name, as well as the system tells it."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def readable_json(data: dict[str, Any]) -> str:
    """Indented JSON; a list of plain values stays on one line."""
    text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)
    flat = re.compile(r'\[\n\s*((?:"(?:[^"\\]|\\.)*"|[^\[\]{}"])*?)\n\s*\]')
    return flat.sub(lambda found: "[" + re.sub(r"\n\s*", " ", found[1]) + "]", text) + "\n"


def commit() -> str | None:
    """The repository's commit, "+" added if files differ from it; None outside of git."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    if not (ROOT / ".git").exists():  # installed: a repository around it is another's
        return None
    try:
        changed = bool(git("status", "--porcelain", "-uno"))
        return git("rev-parse", "--short=12", "HEAD") + "+" * changed
    except (OSError, subprocess.CalledProcessError):
        return None
