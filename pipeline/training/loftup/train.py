"""The training of LoftUp, both stages: one loop around what `stage1` and `stage2` define.

With a budget of steps everything follows from the settings and the step's number, so a run that
was stopped and resumed ends with the same bits as one that was not (on a CPU).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from models.backbones.base import Backbone
from models.loftup.network import LoftUp
from models.weight_files import read_state_dict
from models.weights import load_strictly

from ...world.scenes import load_world
from ..loop import MovingAverage, Run
from ..optimizers import MuonAdamW, PlainAdamW
from .config import PRECISIONS, LoftUpConfig
from .crops import freeze_norms, recalibrate
from .local_start import start_locally
from .pool import Pool, norms_generator, step_generator
from .processes import Processes
from .records import Best, Settings, TensorBoard, draw_curves
from .samples import Source
from .stage import Stage, prepare
from .stage1 import FirstStage
from .stage2 import SecondStage
from .validation import Validator, feature_picture

logger = logging.getLogger(__name__)

STAGES: dict[int, type[FirstStage] | type[SecondStage]] = {1: FirstStage, 2: SecondStage}
BEST = "best.safetensors"
_START_IMAGES = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions:
    """How a training runs; nothing here but `init` and the budget changes its steps.

    Attributes:
        output: folder of everything that is written.
        steps, minutes: the budget, one of the two.
        resume: continue from `output`/last.pt.
        init: LoftUp weights to start from.
        validate_every, picture_every, log_every: steps between; 0 = only at the ends, never.
        validate_images: held-out images (and scenes).
        tensorboard: also log for TensorBoard.
        workers: threads that draw images.
    """

    output: Path
    steps: int | None = None
    minutes: float | None = None
    resume: bool = False
    init: Path | None = None
    validate_every: int = 200
    validate_images: int = 40
    picture_every: int = 0
    log_every: int = 20
    tensorboard: bool = False
    workers: int = 1


def build_stage(config: LoftUpConfig, backbone: Backbone, init: Path | None) -> Stage:
    """The stage with its LoftUp, on the backbone's device.

    Raises:
        ValueError: settings that do not fit the backbone.
        models.weight_files.WeightsError: `init` does not fit.
    """
    torch.manual_seed(config.seed)
    loftup = LoftUp(backbone.dim)
    if init is not None:
        load_strictly(loftup, read_state_dict(init), init)
    loftup.to(next(backbone.model.parameters()).device)
    prepare(loftup, config)
    dtype = getattr(torch, PRECISIONS[config.precision])
    return STAGES[config.stage](loftup, backbone, config, dtype)


class Norms:
    """Whether the batch norms are frozen; part of a checkpoint."""

    def __init__(self, loftup: LoftUp, config: LoftUpConfig) -> None:
        self.loftup, self.config, self.frozen = loftup, config, False

    def advance(self, progress: float, images: list[Tensor], step: int) -> None:
        """Freeze them when it is time, with the statistics of whole images."""
        if self.frozen or progress < self.config.freeze:
            return
        if self.config.windows and step:
            self.recalibrate(self.loftup, images, step)
        self.load_state_dict({"frozen": True})

    def recalibrate(self, loftup: LoftUp, images: list[Tensor], step: int) -> None:
        """Give a LoftUp the statistics of whole images, if it has seen windows alone."""
        if self.config.windows and not self.frozen:
            recalibrate(loftup, images, norms_generator(self.config.seed, step))

    def state_dict(self) -> dict[str, bool]:
        return {"frozen": self.frozen}

    def load_state_dict(self, state: dict[str, bool]) -> None:
        self.frozen = state["frozen"]
        if self.frozen:
            freeze_norms(self.loftup)


def train(
    config: LoftUpConfig,
    options: RunOptions,
    backbone: Backbone,
    source: Source,
    processes: Processes,
) -> dict[str, float]:
    """Train, writing logs, pictures, last.pt and best.safetensors; the last measures.

    Raises:
        FileExistsError: the folder holds a run that is not to be resumed.
        ValueError: settings that do not go together, or other than those of the resumed run.
    """
    stage = build_stage(config, backbone, options.init)
    loftup, main = stage.loftup, processes.rank == 0
    if config.local and options.init is None:
        rng, cells = norms_generator(config.seed, 0), config.side // backbone.patch
        images = [source.draw(rng, config.side).image for _ in range(_START_IMAGES)]
        images = [torch.from_numpy(image).permute(2, 0, 1) for image in images]
        start_locally(loftup, (cells, cells), images, config.frequencies, rng)
    optimizer = (MuonAdamW if config.optimizer == "muon" else PlainAdamW)(loftup, config.lr)
    average, norms, best = MovingAverage(loftup, config.average), Norms(loftup, config), Best()
    told = {"backbone": backbone.name, "weights": backbone.weights, "data": source.name}
    told |= {"init": str(options.init), "steps": options.steps, "processes": processes.count}
    settings = Settings({**config.to_dict(), **told})
    state = {"settings": settings, "model": loftup, "optimizer": optimizer}
    state |= {"average": average, "norms": norms, "best": best}
    if isinstance(stage, SecondStage):
        state["teacher"] = stage.teacher
    run = Run(
        options.output,
        state,
        minutes=options.minutes,
        total=options.steps,
        resume=options.resume,
        writes=main,
        agree=processes.any,
    )
    board = TensorBoard(options.output, run.step) if options.tensorboard and main else None
    validator = judged = None
    if main:
        settings.write(options.output)
        validator = Validator(stage, source, load_world(), options.validate_images)
        judged = LoftUp(loftup.dim).to(next(loftup.parameters()).device).eval()
    module, learned = processes.wrap(stage), [p for p in loftup.parameters() if p.requires_grad]
    measures: dict[str, float] = {}
    judged_at = run.step

    def judge(step: int, images: list[Tensor], *, measure: bool, picture: bool) -> None:
        """Validate, keep the best, and draw, after `step` steps."""
        judged.load_state_dict(average.weights)
        norms.recalibrate(judged, images, step)
        if picture:
            file = options.output / "pictures" / f"{step:06d}.png"
            file.parent.mkdir(exist_ok=True)
            Image.fromarray(feature_picture(validator, judged)).save(file)
        if measure:
            measures.update(validator.measure(judged))
            run.log("validation.csv", done=step, **measures)
            if board:
                board.add(step, measures)
            logger.info("step %d: %s", step, {k: round(v, 3) for k, v in measures.items()})
            if best.improves(step, validator.score(measures)):
                save_weights(judged.state_dict(), options.output / BEST)

    with Pool(source, stage, config, rank=processes.rank, workers=options.workers) as pool:
        for step in run.steps():
            rng = step_generator(config.seed, processes.rank, step)
            samples, examples = pool.batch(step, rng)
            norms.advance(run.progress, pool.images, step)
            if main and step == 0:
                judge(0, pool.images, measure=True, picture=options.picture_every > 0)
            rate = run.rate(config.lr, config.schedule)
            terms = module(stage.batch(samples, examples, rng))
            loftup.zero_grad()
            processes.backward(stage.loss(terms))
            nn.utils.clip_grad_norm_(learned, 1.0, error_if_nonfinite=True)
            optimizer.step(rate)
            average.update(loftup)
            stage.after_step(step + 1)
            done = step + 1
            last = done == options.steps or run.progress >= 1
            if main and (last or due(done, options.log_every)):
                values = {name: term.item() for name, term in terms.items()}
                values = {"loss": stage.loss(terms).item(), **values}
                run.log(lr=rate, **values)
                if board:
                    board.add(done, values)
            measure = last or due(done, options.validate_every)
            picture = options.picture_every > 0 and (last or due(done, options.picture_every))
            if main and (measure or picture):
                judge(done, pool.images, measure=measure, picture=picture)
                judged_at = done if measure else judged_at
        if main and run.progress >= 1 and judged_at < run.step:  # the minutes ended between steps
            judge(run.step, pool.images, measure=True, picture=options.picture_every > 0)
    if main:
        draw_curves(options.output)
    return measures


def export_best(folder: Path, path: Path) -> None:
    """Write a run's best weights to another file, in half precision.

    Raises:
        FileNotFoundError: the run has none yet.
        ValueError: unknown kind of file.
    """
    if not (folder / BEST).is_file():
        raise FileNotFoundError(f"{folder / BEST} does not exist: train first")
    save_weights(read_state_dict(folder / BEST), path, half=True)


def due(step: int, every: int) -> bool:
    """Whether something that happens every so many steps (0: never) happens after this one."""
    return every > 0 and step % every == 0


def save_weights(weights: dict[str, Tensor], path: Path, *, half: bool = False) -> None:
    """Write a LoftUp under the official names: .safetensors, or .bin / .pt as published.

    Args:
        weights: a state dict.
        path: file to write.
        half: floating numbers in 16 bits; counters stay integers.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {
        k: (v.half() if half and v.is_floating_point() else v).detach().cpu().contiguous().clone()
        for k, v in weights.items()
    }
    temporary = path.with_name(f"{path.name}.tmp")
    if path.suffix == ".safetensors":
        save_file(weights, str(temporary))
    elif path.suffix in (".bin", ".pt", ".pth"):
        torch.save(weights, temporary)
    else:
        raise ValueError(f"{path} has no suffix of weights: use .safetensors, .bin or .pt")
    temporary.replace(path)
    logger.info("wrote %s (%.1f MB)", path, path.stat().st_size / 1e6)
