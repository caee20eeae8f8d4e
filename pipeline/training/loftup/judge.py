"""What becomes of a student while it learns: logs, measures, pictures, and its best weights."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import Tensor

from ..loop import Run
from ..weights import MovingAverage, save_weights
from .norms import Norms
from .records import Best, TensorBoard, draw_curves
from .students import network_of
from .validation import Validator, feature_picture

logger = logging.getLogger(__name__)

BEST = "best.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions:
    """How a training runs; nothing here but `init` and the budget changes its steps."""

    output: Path  # folder of everything that is written
    steps: int | None = None  # the budget, or ...
    minutes: float | None = None  # ... its time, one of the two
    resume: bool = False  # continue from last.pt
    init: Path | None = None  # LoftUp weights to start from
    validate_every: int = 200  # steps between; 0: at the ends alone
    validate_images: int = 40  # held-out images, and scenes
    picture_every: int = 0  # steps between; 0: none
    log_every: int = 20  # steps between; 0: at the end alone
    tensorboard: bool = False  # log for TensorBoard as well
    workers: int = 1  # threads that draw images


class Judge:
    """Judges the average of the weights; in one process alone."""

    def __init__(
        self,
        run: Run,
        options: RunOptions,
        validator: Validator,
        average: MovingAverage,
        norms: Norms,
        best: Best,
    ) -> None:
        self.run, self.options, self.validator = run, options, validator
        self.average, self.norms, self.best = average, norms, best
        self.judged = copy.deepcopy(validator.stage.student).eval()
        self.board = TensorBoard(options.output, run.step) if options.tensorboard else None
        self.measures: dict[str, float] = {}
        self._measured_at = run.step

    def before(self, images: list[Tensor]) -> None:
        """Judge what a run begins with; `images` are training images, here and below."""
        self._judge(0, images, measure=True, picture=self.options.picture_every > 0)

    def after(self, done: int, lr: float, terms: dict[str, float], images: list[Tensor]) -> None:
        """Log and judge what is due after `done` steps, and in any case after the last."""
        options = self.options
        last = done == options.steps or self.run.progress >= 1
        if last or _due(done, options.log_every):
            self.run.log(lr=lr, **terms)
            if self.board:
                self.board.add(done, terms)
        measure = last or _due(done, options.validate_every)
        picture = options.picture_every > 0 and (last or _due(done, options.picture_every))
        self._judge(done, images, measure=measure, picture=picture)

    def finish(self, images: list[Tensor]) -> None:
        """Judge the end, if the minutes ended between steps; draw the curves."""
        if self.run.progress >= 1 and self._measured_at < self.run.step:
            picture = self.options.picture_every > 0
            self._judge(self.run.step, images, measure=True, picture=picture)
        draw_curves(self.options.output)

    def _judge(self, done: int, images: list[Tensor], *, measure: bool, picture: bool) -> None:
        if not (measure or picture):
            return
        self.judged.load_state_dict(self.average.weights)
        self.norms.recalibrate(self.judged, images, done)
        if picture:
            file = self.options.output / "pictures" / f"{done:06d}.png"
            file.parent.mkdir(exist_ok=True)
            Image.fromarray(feature_picture(self.validator, self.judged)).save(file)
        if measure:
            self._measured_at = done
            self.measures = self.validator.measure(self.judged)
            self.run.log("validation.csv", done=done, **self.measures)
            if self.board:
                self.board.add(done, self.measures)
            logger.info("step %d: %s", done, {k: round(v, 3) for k, v in self.measures.items()})
            if self.best.improves(done, self.validator.score(self.measures)):
                save_weights(network_of(self.judged).state_dict(), self.options.output / BEST)


def _due(step: int, every: int) -> bool:
    """Whether something that happens every so many steps (0: never) happens after this one."""
    return every > 0 and step % every == 0
