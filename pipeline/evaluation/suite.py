"""Methods × data sets × upsamplers: many benchmarks in one run, and their table.

    OUTPUT/<data set>_<method>/   one benchmark each, see `report.outputs`
    OUTPUT/suite.json, suite.md   the table, see `report.suite_table`

Each method runs under its own protocol on each data set. What data or weights are missing is said
in the table. Interrupted, a second call goes on: predictions that exist are kept, and benchmarks
that are finished are not scored again.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.dense import Dense
from models.networks import Networks
from models.protocols import get_protocol, rendered
from models.published import FIGURES, METHODS, NAMES

from ..config import PipelineConfig
from ..datasets.base import Dataset
from ..files.atomic import read_json
from .arms import Arm, parse_arm
from .predict import predict
from .ranks import Ranks
from .report.outputs import commit, write_outputs
from .report.suite_table import Cell
from .runner import ArmRunner
from .score import scoring_protocol

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One method on one data set.

    Attributes:
        dataset: key of `models.published.NAMES`, which are keys of `DATASETS`.
        method: key of `models.published.METHODS`.
        arms: upsampler → arm.
    """

    dataset: str
    method: str
    arms: dict[str, str]


def plan(methods: Iterable[str], datasets: Iterable[str], upsamplers: Iterable[str]) -> list[Job]:
    """The benchmarks of a table, data set by data set.

    Raises:
        ValueError: an unknown method, data set or upsampler.
    """
    upsamplers, jobs = list(dict.fromkeys(upsamplers)), []
    for name in upsamplers:
        parse_arm(name)
    for dataset in dict.fromkeys(datasets):
        if dataset not in NAMES:
            raise ValueError(f"unknown data set {dataset!r}; valid: {', '.join(NAMES)}")
        for method in dict.fromkeys(methods):
            if method not in METHODS:
                raise ValueError(f"unknown method {method!r}; valid: {', '.join(METHODS)}")
            part = f"+{METHODS[method]}" if METHODS[method] else ""
            arms = {name: name + part for name in upsamplers}
            jobs.append(Job(dataset=dataset, method=method, arms=arms))
    return jobs


def run_suite(
    jobs: Sequence[Job],
    open_data: Callable[[str], tuple[Dataset, dict[str, Any]]],
    networks: Networks,
    ranks: Ranks,
    output: Path,
    *,
    config: PipelineConfig | None = None,
    is_rendered: bool = False,
    resamples: int = 2000,
    overwrite: bool = False,
) -> list[Cell]:
    """Run what can be run.

    Args:
        jobs: of `plan`.
        open_data: a data set's name → the data set, and what the report says of it; what it raises
            is told in the table.
        networks: of all methods.
        ranks: this process among all; each predicts its share of the images.
        output: folder of all results.
        config: of the final masks, for arms that have some.
        is_rendered: rendered scenes stand in for the data sets: their words.
        resamples: of the bootstrap.
        overwrite: make all predictions anew.

    Returns:
        The table's cells, in the first process; nothing in the others.

    Raises:
        ValueError: predictions of other settings or images are in the way.
    """
    cells = []
    for job in jobs:
        folder = output / f"{job.dataset}_{job.method}"
        opened, problem = None, None
        try:
            dataset, settings = open_data(job.dataset)
            opened = _runner(job, dataset, networks, config, is_rendered), dataset, settings
        except (OSError, ValueError) as error:
            problem = _line(error)
        missing = dict.fromkeys(job.arms, _first(ranks.gather(problem)))
        if opened and not any(missing.values()):
            missing = {name: _why_not(opened[0], arm, ranks) for name, arm in job.arms.items()}
        for name, why in missing.items():
            if why and ranks.rank == 0:
                logger.warning("%s, %s, %s: %s", job.dataset, job.method, name, why)
        arms = [parse_arm(job.arms[name]) for name, why in missing.items() if not why]
        data: dict[str, Any] = {}
        if opened and arms:
            data = _benchmark(*opened, arms, folder, ranks, resamples, overwrite=overwrite)
        if ranks.rank == 0:
            cells += [_cell(job, name, data, missing[name]) for name in job.arms]
    return cells


def _runner(
    job: Job, dataset: Dataset, networks: Networks, config: PipelineConfig | None, stand_in: bool
) -> ArmRunner:
    protocol = get_protocol(f"{job.method}-{job.dataset}")
    protocol = scoring_protocol(rendered(protocol) if stand_in else protocol, dataset.labels)
    return ArmRunner(
        Dense(networks), protocol, dataset.labels, ignore=dataset.ignore, config=config
    )


def _why_not(runner: ArmRunner, arm: str, ranks: Ranks) -> str | None:
    """Why an arm cannot be run in all processes; None if it can."""
    try:
        runner.load([parse_arm(arm)])
        problem = None
    except (OSError, ValueError) as error:
        problem = _line(error)
    return _first(ranks.gather(problem))


def _benchmark(
    runner: ArmRunner,
    dataset: Dataset,
    settings: dict[str, Any],
    arms: Sequence[Arm],
    folder: Path,
    ranks: Ranks,
    resamples: int,
    *,
    overwrite: bool,
) -> dict[str, Any]:
    """What results.json holds, in the first process."""
    failed = predict(dataset, runner, arms, folder / "predictions", ranks, overwrite=overwrite)
    if ranks.rank:
        return {}
    names = [arm.name for arm in arms]
    if found := _finished(folder, names, len(dataset.ids), settings | {"resamples": resamples}):
        return found
    return write_outputs(
        dataset,
        names,
        folder,
        failed,
        baseline=names[0],
        resamples=resamples,
        settings=settings,
        processes=ranks.world,
    )


def _finished(
    folder: Path, arms: Sequence[str], images: int, settings: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Results that are there already, of these arms, images and code, newer than predictions."""
    path = folder / "results.json"
    try:
        found, made = read_json(path), path.stat().st_mtime_ns
    except (FileNotFoundError, ValueError):
        return None
    same = (
        list(found["arms"]) == list(arms)
        and found["images"]["asked"] == found["images"]["scored"] == images
        and found["commit"] == commit()
        and all(found["settings"].get(name) == value for name, value in settings.items())
    )
    files = (f for arm in arms for f in (folder / "predictions" / arm).glob("*.png"))
    return found if same and all(f.stat().st_mtime_ns <= made for f in files) else None


def _cell(job: Job, upsampler: str, data: Mapping[str, Any], why: str | None) -> Cell:
    arm = job.arms[upsampler]
    known = [f for f in FIGURES if (f.protocol, f.arm) == (f"{job.method}-{job.dataset}", arm)]
    empty = Cell(
        dataset=job.dataset,
        method=job.method,
        upsampler=upsampler,
        arm=arm,
        published=known[0].miou if known else None,
        why=why or "",
    )
    if why:
        return empty
    return dataclasses.replace(
        empty,
        miou=data["arms"][arm]["mIoU"],
        images=data["images"]["scored"],
        failed=data["images"]["failed"],
        off=any(entry["off"] for entry in data["published"] if entry["arm"] == arm),
    )


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _first(problems: Sequence[str | None]) -> str | None:
    return next((problem for problem in problems if problem), None)
