"""What a LoftUp training learns and how: one configuration, and its named recipes.

`paper` is what Huang et al. 2025 (arXiv:2504.14032, section 3.3 and appendix) describe, for a GPU.
`released` has the settings of the scripts that the authors published later, whose learning rates
they recommend over the paper's. Those scripts also add FeatUp's multi-view term (a learnt
downsampler reproduces the features of moved images), which is not in here, draw stage 2's side
from 224 to 518, train on features without the channel norm, and take stage 1's total variation of
the squared length of 64 random projections, not of the features themselves.
`tiny` is this project's own, which learns most in some core-hours of a CPU: weights that average
the nearest cells before anything is learnt, small windows near outlines instead of whole images,
Muon, mask features that trust pure cells and are taken from the enlarged image as well, a term in
text space, an anchor to the low-resolution features, and scenes that are used more than once.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

OPTIMIZERS = ("adamw", "nadam", "muon")
SEGMENTERS = ("felzenszwalb", "slic")  # of photographs without masks
NETWORKS = ("loftup", "naf")
HEADS = ("projection", "residual", "mix")  # of LoftUp
SCHEDULES = ("constant", "cosine")
PRECISIONS = {"fp32": "float32", "bf16": "bfloat16"}  # names in torch
GUIDE_FREQUENCIES = 20  # those of models.loftup, which would load torch for a --help


def _option(default: Any, text: str, **more: Any) -> Any:
    return dataclasses.field(default=default, metadata={"help": text, **more})


@dataclass(frozen=True, kw_only=True, slots=True)
class LoftUpConfig:
    """Every setting that changes the trained weights; each is an option of the program."""

    stage: int = _option(1, "1: towards mask means; 2: self-distillation of 1", choices=(1, 2))
    network: str = _option("loftup", "what is trained", choices=NETWORKS)
    head: str = _option("projection", "LoftUp's last layer; not its own: keep near", choices=HEADS)
    width: int = _option(256, "NAF's width of queries and keys; published: 256")
    seed: int = _option(1, "seed of weights, data and crops")
    side: int = _option(224, "side of the square training images, pixels")
    batch: int = _option(8, "images per step (and process)")
    lr: float = _option(1e-3, "peak learning rate")
    optimizer: str = _option("adamw", "AdamW, NAdam, or Muon on matrices", choices=OPTIMIZERS)
    schedule: str = _option("constant", "of the learning rate, after a warm-up", choices=SCHEDULES)
    alpha: float = _option(0.8, "share of the mask's mean in the target, the rest is the pixel's")
    purity: bool = _option(False, "mask means over cells by purity, not over bicubic pixels")
    detail: bool = _option(False, "mask means also from the image enlarged twice (stage 1)")
    l2: float = _option(1.0, "weight of the squared distance to the target (stage 1)")
    shares: float = _option(0.0, "weight of masks mixed like features (stage 1; NAF, head mix)")
    mask: float = _option(0.0, "weight of the masks' probabilities in text space (stage 1)")
    anchor: float = _option(0.0, "weight of pooled output against the low-res features; 0 = off")
    tv: float = _option(0.0, "weight of the output's total variation")
    soft_start: bool = _option(False, "hold the gradient's norm to 1e-4 in the first 10 steps")
    windows: int = _option(0, "windows per image that the loss sees; 0 = whole images (stage 1)")
    window_side: int = _option(32, "side of these windows, pixels")
    pool: int = _option(0, "images kept and used again, with new windows; 0 = every image once")
    fresh: int = _option(2, "of a batch new in every step, where there is a pool")
    frequencies: int = _option(GUIDE_FREQUENCIES, "guide frequencies listened to, lowest first")
    learn_phases: bool = _option(True, "the guide's phases are learnt, else stay random")
    local: bool = _option(False, "start as a local average of the cells, not at random")
    average: float = _option(0.0, "decay of the average of weights that is kept; 0 = the weights")
    freeze: float = _option(1.0, "progress 0…1 from which batch norms stay fixed; 1 = never")
    precision: str = _option("fp32", "bf16: mixed precision", choices=tuple(PRECISIONS))
    enlarge: tuple[float, float] = _option((2.0, 4.0), "least and greatest zoom t of the teacher")
    crops: int = _option(2, "teacher's crops per image")
    corner: int = _option(16, "crops begin every N pixels of the enlarged image; 0: at patches")
    min_side: int = _option(0, "leave out images of a folder with a shorter side, pixels")
    teacher_decay: float = _option(0.99, "decay of the teacher's average of the student")
    teacher_every: int = _option(10, "steps between the teacher's updates")
    affinity_pixels: int = _option(1024, "pixels per crop in an affinity matrix")

    def __post_init__(self) -> None:
        def expect(good: bool, name: str, expected: str) -> None:
            if not good:
                raise ValueError(f"{name} must be {expected}, got {getattr(self, name)}")

        for field in dataclasses.fields(self):
            if choices := field.metadata.get("choices"):
                expect(
                    getattr(self, field.name) in choices, field.name, " or ".join(map(str, choices))
                )
        for name in ("side", "batch", "crops", "teacher_every", "affinity_pixels", "window_side"):
            expect(getattr(self, name) >= 1, name, "at least 1")
        terms = ("l2", "shares", "mask", "anchor", "tv")
        for name in (*terms, "seed", "windows", "pool", "corner", "min_side"):
            expect(getattr(self, name) >= 0, name, "0 or more")
        for name in ("alpha", "freeze"):
            expect(0 <= getattr(self, name) <= 1, name, "between 0 and 1")
        for name in ("average", "teacher_decay"):
            expect(0 <= getattr(self, name) < 1, name, "at least 0 and below 1")
        own = self.network == "loftup" and self.head == "projection"
        own |= self.network == "naf"
        expect(own or not self.local, "local", "off for LoftUp with another head than projection")
        expect(self.network == "loftup" or self.head == "projection", "head", "projection for NAF")
        mixes = self.network == "naf" or self.head == "mix"
        expect(mixes or not self.shares, "shares", "0 but for NAF and head mix, which mix features")
        expect(self.width >= 16 and self.width % 16 == 0, "width", "a positive multiple of 16")
        fixed = self.network == "naf" or self.freeze == 0
        expect(fixed or not self.local, "freeze", "0 with a local start")
        expect(self.lr > 0, "lr", "above 0")
        expect(1 <= self.frequencies <= GUIDE_FREQUENCIES, "frequencies", f"1…{GUIDE_FREQUENCIES}")
        expect(1 <= self.enlarge[0] <= self.enlarge[1], "enlarge", "1 <= least <= greatest")
        if self.pool:
            expected = f"1…{self.batch} (the batch) and a divisor of the pool {self.pool}"
            good = 1 <= self.fresh <= self.batch and self.pool % self.fresh == 0
            expect(good, "fresh", expected)
            expect(self.pool >= self.batch, "pool", f"0 or at least the batch, {self.batch}")
        if self.stage == 2:
            expect(self.windows == 0, "windows", "0 in stage 2, which has crops")
            expect(self.shares == 0, "shares", "0 in stage 2, whose masks are the teacher's")
            expect(self.mask == 0, "mask", "0 in stage 2, whose target has no masks in text space")
            expect(not self.detail, "detail", "off in stage 2, whose teacher enlarges by itself")

    @property
    def new_per_step(self) -> int:
        """Images of a batch that no earlier batch had."""
        return self.fresh if self.pool else self.batch

    @property
    def kept(self) -> int:
        """Images at hand in every step."""
        return self.pool or self.batch

    def to_dict(self) -> dict[str, Any]:
        return {k: list(v) if isinstance(v, tuple) else v
                for k, v in dataclasses.asdict(self).items()}  # fmt: skip


_TINY = LoftUpConfig(
    batch=12,
    lr=1e-3,
    optimizer="muon",
    schedule="cosine",
    alpha=0.9,  # its masks are exact
    purity=True,
    detail=True,
    mask=0.3,
    anchor=0.1,
    windows=2,
    pool=192,
    frequencies=11,  # up to e^4.3: the others are finer than pixels and noise
    learn_phases=False,
    average=0.999,
    local=True,
    freeze=0.0,
    precision="bf16",
)
_PHOTOGRAPHS = LoftUpConfig(
    network="naf",
    width=64,
    local=True,
    side=336,  # near the scale and the grid of what it is for: NAF's waves count parts of an image
    batch=1,
    lr=2e-3,
    schedule="cosine",
    alpha=0.9,
    purity=True,
    l2=0.0,
    shares=1.0,
    windows=8,
    window_side=48,
    average=0.99,
)
RECIPES: dict[str, dict[int, LoftUpConfig]] = {
    "paper": {1: LoftUpConfig(), 2: LoftUpConfig(stage=2, lr=1e-4, min_side=1500)},
    "released": {
        1: LoftUpConfig(lr=1e-4, optimizer="nadam", tv=0.01, soft_start=True),
        2: LoftUpConfig(
            stage=2,
            alpha=0.5,
            tv=0.05,
            soft_start=True,
        ),
    },
    "photographs": {
        1: _PHOTOGRAPHS,
        2: dataclasses.replace(
            _PHOTOGRAPHS,
            stage=2,
            lr=2e-4,
            shares=0.0,
            windows=0,
            anchor=0.1,
            side=112,  # so that the teacher's crops hold detail: photographs are not much larger
            enlarge=(2.0, 2.0),
            min_side=224,
        ),
    },
    "tiny": {
        1: _TINY,
        2: dataclasses.replace(
            _TINY,
            stage=2,
            batch=2,
            lr=1e-4,
            detail=False,
            mask=0.0,
            windows=0,
            pool=0,
            average=0.99,
            local=False,
            corner=0,
            enlarge=(1.5, 2.0),  # the tiny CLIP names things worse that are larger still
            affinity_pixels=512,
        ),
    },
}


def get_recipe(name: str, stage: int) -> LoftUpConfig:
    """The recipe `name` for one stage.

    Raises:
        ValueError: no such recipe or stage.
    """
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}; valid: {', '.join(RECIPES)}")
    if stage not in RECIPES[name]:
        raise ValueError(f"stage must be 1 or 2, got {stage}")
    return RECIPES[name][stage]
