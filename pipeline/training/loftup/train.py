"""The training of LoftUp, both stages: one loop around what `stage1` and `stage2` define.

With a budget of steps everything follows from the settings and the step's number, so a run that
was stopped and resumed ends with the same bits as one that was not (on a CPU).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from models.backbones.base import Backbone
from models.weight_files import read_state_dict
from models.weights import load_strictly

from ...evaluation.ranks import Ranks
from ...world.scenes import load_world
from ..loop import Run, Stateful
from ..optimizers import adamw, muon_adamw, nadam
from ..weights import MovingAverage, save_weights
from .config import PRECISIONS, LoftUpConfig
from .judge import BEST, Judge, RunOptions
from .local_start import start_locally
from .norms import Norms
from .pool import Pool, norms_generator, step_generator
from .records import Best, Settings
from .samples import Source
from .stage import Stage
from .stage1 import FirstStage
from .stage2 import SecondStage
from .students import NafStudent, build_student, network_of, start_naf_locally
from .validation import Validator

STAGES: dict[int, type[FirstStage] | type[SecondStage]] = {1: FirstStage, 2: SecondStage}
OPTIMIZERS = {"adamw": adamw, "nadam": nadam, "muon": muon_adamw}
EARLY_STEPS, EARLY_NORM = 10, 1e-4  # of the published scripts
_START_IMAGES = 32


def build_stage(config: LoftUpConfig, backbone: Backbone, init: Path | None) -> Stage:
    """The stage with its student, on the backbone's device.

    Raises:
        ValueError: settings that do not fit the backbone.
        models.weight_files.WeightsError: `init` does not fit.
    """
    torch.manual_seed(config.seed)
    student = build_student(config, backbone.dim)
    if init is not None:
        load_strictly(network_of(student), read_state_dict(init), init)
    student.to(next(backbone.model.parameters()).device)
    dtype = getattr(torch, PRECISIONS[config.precision])
    return STAGES[config.stage](student, backbone, config, dtype)


def train(
    config: LoftUpConfig, options: RunOptions, backbone: Backbone, source: Source, ranks: Ranks
) -> dict[str, float]:
    """Train, writing logs, pictures, last.pt and best.safetensors; the last measures.

    Raises:
        FileExistsError: the folder holds a run that is not to be resumed.
        ValueError: settings that do not go together, or other than those of the resumed run.
    """
    stage = build_stage(config, backbone, options.init)
    student = stage.student
    if config.local and options.init is None:
        _start_locally(stage, source)
    optimizer = OPTIMIZERS[config.optimizer](student, config.lr)
    average, norms, best = MovingAverage(student, config.average), Norms(student, config), Best()
    known = {"backbone": backbone.name, "weights": backbone.weights, "data": source.name}
    known |= {"init": str(options.init), "steps": options.steps, "processes": ranks.world}
    settings = Settings({**config.to_dict(), **known})
    state: dict[str, Stateful] = {"settings": settings, "model": student, "optimizer": optimizer}
    state |= {"average": average, "norms": norms, "best": best}
    if isinstance(stage, SecondStage):
        state["teacher"] = stage.teacher
    run = Run(
        options.output,
        state,
        minutes=options.minutes,
        total=options.steps,
        resume=options.resume,
        writes=ranks.rank == 0,
        agree=ranks.any,
    )
    judge = None
    if ranks.rank == 0:
        settings.write(options.output)
        validator = Validator(stage, source, load_world(), options.validate_images)
        judge = Judge(run, options, validator, average, norms, best)

    module, learned = ranks.share(stage), [p for p in student.parameters() if p.requires_grad]
    pool = Pool(source, stage, config, rank=ranks.rank, workers=options.workers)
    with pool:
        for step in run.steps():
            rng = step_generator(config.seed, ranks.rank, step)
            samples, examples = pool.batch(step, rng)
            norms.advance(run.progress, pool.images, step)
            if judge and step == 0:
                judge.before(pool.images)
            rate = run.rate(config.lr, config.schedule)
            terms = module(stage.batch(samples, examples, rng))
            loss = stage.loss(terms)
            student.zero_grad()
            loss.backward()
            limit = EARLY_NORM if config.soft_start and step < EARLY_STEPS else 1.0
            nn.utils.clip_grad_norm_(learned, limit, error_if_nonfinite=True)
            optimizer.step(rate)
            average.update(student)
            stage.after_step(step + 1)
            if judge:
                values = {name: term.item() for name, term in {"loss": loss, **terms}.items()}
                judge.after(step + 1, rate, values, pool.images)
        if judge:
            judge.finish(pool.images)
    return judge.measures if judge else {}


def _start_locally(stage: Stage, source: Source) -> None:
    """Set a new student's weights by hand, LoftUp's after some training images."""
    config, grid = stage.config, stage.config.side // stage.backbone.patch
    if isinstance(stage.student, NafStudent):
        start_naf_locally(stage.student.naf, grid)
        return
    rng = norms_generator(config.seed, 0)
    images = [source.draw(rng, config.side).image for _ in range(_START_IMAGES)]
    images = [torch.from_numpy(image).permute(2, 0, 1) for image in images]
    start_locally(stage.student, (grid, grid), images, config.frequencies, rng)


def export_best(folder: Path, path: Path) -> None:
    """Write a run's best weights to another file, in half precision.

    Raises:
        FileNotFoundError: the run has none yet.
        ValueError: unknown kind of file.
    """
    if not (folder / BEST).is_file():
        raise FileNotFoundError(f"{folder / BEST} does not exist: train first")
    save_weights(read_state_dict(folder / BEST), path, half=True)
