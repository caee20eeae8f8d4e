"""Train the tiny LoftUp on the tiny CLIP's `csa` features of rendered scenes, on a CPU.

    python scripts/train_tiny.py loftup --output runs/loftup --minutes 40 --threads 2
    python scripts/train_tiny.py loftup --output runs/loftup --export models/tiny/loftup.safetensors

LoftUp's stage 1 (Huang et al. 2025, arXiv:2504.14032), the network unchanged. Three terms compare
windows of the output with `loftup_targets`: the squared distance of the paper; the cross-entropy
between the two ways to tell which mask a pixel belongs to, in CLIP's joint space, which weighs the
directions that set things apart; and an anchor, the squared distance between the output's mean
over a cell and the feature of that cell, which keeps the output aligned with text.

Shapes: B images, n windows of all images, C channels, h×w cells, s side of a window, M masks.
"""

from __future__ import annotations

import argparse
import logging
import math
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from models.clip_dense import dense_features
from models.loftup import (
    GUIDE_FREQUENCIES,
    GUIDE_SIGNALS,
    LoftUp,
    Window,
    restore_text_space,
    scale_colours,
)
from models.weights import build_clip, load_strictly, read_state_dict

from ..metrics import confusion, edge_band, mean_iou
from ..world import World, load_world
from .clip import SIDE, normalise, training_scene
from .loftup_loss import loss_terms, upsample_windows
from .loftup_targets import Example, choose_windows, make_examples
from .loop import MovingAverage, Run
from .optimizers import MuonAdamW
from .validation import Namer, enlarge, held_out_scene

logger = logging.getLogger(__name__)

TINY = Path(__file__).resolve().parents[2] / "models" / "tiny"
USED_FREQUENCIES = 11  # of 20, up to e^4.3: the others are finer than pixels and noise
FREEZE = 0.75  # progress from which the batch norms stay as they are at inference
SCORES = tuple(
    f"{name}{part}" for name in ("bilinear", "loftup", "normed", "mixed") for part in ("", "_edge")
)
WEIGHTS = {"l2": 1.0, "mask": 0.3, "anchor": 0.1}


class ExampleSource:
    """Batches of a few new scenes and many from a pool, whose windows are chosen anew.

    A scene's features cost as much as training on three of its windows.
    """

    def __init__(
        self,
        clip: nn.Module,
        loftup: LoftUp,
        world: World,
        rng: np.random.Generator,
        *,
        pool: int,
        fresh: int,
    ) -> None:
        self.clip, self.loftup, self.world, self.rng = clip, loftup, world, rng
        self.fresh, self.pool = fresh, []
        while len(self.pool) < pool:
            self.pool += self._new(min(8, pool - len(self.pool)))

    def _new(self, count: int) -> list[Example]:
        scenes = [training_scene(self.world, self.rng) for _ in range(count)]
        return make_examples(self.clip, self.loftup, scenes)

    def batch(self, count: int) -> list[Example]:
        order = self.rng.permutation(len(self.pool))[:count]
        for slot, example in zip(order[: self.fresh], self._new(self.fresh), strict=True):
            self.pool[slot] = example
        return [self.pool[slot] for slot in order]


@torch.no_grad()
def recalibrate(loftup: LoftUp, images: list[Tensor], rng: np.random.Generator) -> None:
    """Set the batch norms' running statistics to those of evenly drawn windows of `images`."""
    net, side = loftup.upsampler, 64
    guides = []
    for image in images:
        top, left = (int(rng.integers(0, n - side + 1)) for n in image.shape[1:])
        scaled = scale_colours(image[None])
        guides.append(net.encode_guide(scaled, Window(top, left, side, side)))
    norms = [m for m in net.first_conv if isinstance(m, nn.BatchNorm2d)]
    before = [(m.training, m.momentum) for m in norms]
    for m in norms:
        m.train()
        m.momentum = 1.0
    with torch.autocast("cpu", torch.bfloat16):
        net.first_conv(torch.cat(guides))
    for m, (training, momentum) in zip(norms, before, strict=True):
        m.train(training)
        m.momentum = momentum


def freeze_norms(loftup: LoftUp) -> None:
    """Batch norms use their running statistics from now on, in training mode as well."""
    for m in loftup.upsampler.first_conv:
        if isinstance(m, nn.BatchNorm2d):
            m.eval()


def prepare(loftup: LoftUp) -> None:
    """Fix what this training does not learn.

    The channel norm stays plain (the target lives in its space, which could otherwise shrink), the
    guide's phases stay random, and what a pixel's encoding says above the used frequencies, where
    neighbouring pixels and noise look alike, is never listened to: those weights stay zero.
    """
    loftup.channelnorm.requires_grad_(False)
    loftup.upsampler.fourier_feat.requires_grad_(False)
    used = torch.ones(2, GUIDE_FREQUENCIES, GUIDE_SIGNALS)
    used[:, USED_FREQUENCIES:] = 0
    used = torch.cat([used.flatten(), torch.ones(3)])[:, None, None]
    weight = loftup.upsampler.first_conv[1].weight
    weight.data *= used
    weight.register_hook(lambda gradient: gradient * used)


@torch.no_grad()
def validate(
    loftup: LoftUp, clip: nn.Module, namer: Namer, world: World, count: int
) -> dict[str, float]:
    """mIoU and edge-band mIoU (percent) on whole 224² held-out scenes.

    Ways: bilinear scores, LoftUp in the joint space ("loftup") and in the channel norm's
    ("normed"), and the mean of the bilinear and the joint-space scores ("mixed").
    """
    matrices: dict[str, np.ndarray] = {}
    for i in range(count):
        scene = held_out_scene(world, i, (SIDE, SIDE))
        image = normalise([scene.image], clip)
        features = dense_features(clip, image)
        with torch.autocast("cpu", torch.bfloat16):
            normed = loftup(features, image).float()
        joint = restore_text_space(normed, features, loftup.channelnorm.norm)
        scores = {
            "bilinear": enlarge(namer.scores(features[0]), (SIDE, SIDE)),
            "loftup": namer.scores(joint[0]),
            "normed": namer.scores(normed[0]),
        }
        scores["mixed"] = (scores["bilinear"] + scores["loftup"]) / 2
        truth = namer.truth(scene)
        band = edge_band(truth)
        for name, map_ in scores.items():
            predicted = map_.argmax(0).numpy()
            for key, pixels in ((name, np.s_[:]), (f"{name}_edge", band)):
                found = confusion(truth[pixels], predicted[pixels], namer.count)
                matrices[key] = matrices.get(key, 0) + found
    return {key: mean_iou(matrix) for key, matrix in matrices.items()}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this training's options."""
    parser.add_argument("--output", type=Path, default=Path("runs/loftup"), help="run folder")
    parser.add_argument("--minutes", type=float, default=60, help="time budget of the whole run")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--images", type=int, default=12, help="scenes per step")
    parser.add_argument("--fresh", type=int, default=2, help="of them new in every step")
    parser.add_argument("--pool", type=int, default=192, help="scenes kept for the others")
    parser.add_argument("--windows", type=int, default=2, help="windows per scene")
    parser.add_argument("--side", type=int, default=32, help="side of a window, pixels")
    parser.add_argument("--lr", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=1, help="seed of weights and scenes")
    parser.add_argument("--resume", action="store_true", help="continue from OUTPUT/last.pt")
    parser.add_argument("--init", type=Path, help="start from the weights in this file")
    parser.add_argument(
        "--clip",
        type=Path,
        default=TINY / "clip" / "open_clip_model.safetensors",
        help="weights of the tiny CLIP",
    )
    parser.add_argument("--validate-minutes", type=float, default=6.0, help="between validations")
    parser.add_argument("--validate-scenes", type=int, default=40, help="held-out scenes")
    parser.add_argument("--export", type=Path, help="only write the averaged weights to this file")


def export(weights: dict[str, Tensor], path: Path) -> None:
    """Write half-precision weights under the official names; counters stay integers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    halves = {k: v.half() if v.is_floating_point() else v for k, v in weights.items()}
    save_file({k: v.contiguous() for k, v in halves.items()}, str(path))
    logger.info("wrote %s (%.1f MB)", path, path.stat().st_size / 1e6)


def run(args: argparse.Namespace) -> int:
    """Train, or export what is trained; returns the exit status."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    if (args.resume or args.export) and not (args.output / "last.pt").is_file():
        raise FileNotFoundError(f"{args.output / 'last.pt'} does not exist: train first")
    clip, tokenizer = build_clip(TINY / "clip")
    loftup = LoftUp(clip.visual.proj.shape[1])
    if args.init:
        load_strictly(loftup, read_state_dict(args.init), args.init)
    prepare(loftup)
    learned = [p for p in loftup.parameters() if p.requires_grad]
    optimizer = MuonAdamW(loftup, args.lr)
    average = MovingAverage(loftup)
    state = {"model": loftup, "optimizer": optimizer, "average": average}
    rng = np.random.default_rng([20_000, args.seed, 1])
    work = Run(args.output, state, minutes=args.minutes, rng=rng, resume=args.resume or args.export)
    if args.export:
        export(average.weights, args.export)
        return 0

    load_strictly(clip, read_state_dict(args.clip), args.clip)
    clip.eval().requires_grad_(False)
    world, scale = load_world(), clip.logit_scale.exp().item()
    namer = Namer(clip, tokenizer, world)
    source = ExampleSource(clip, loftup, world, rng, pool=args.pool, fresh=args.fresh)
    judged = LoftUp(loftup.dim).eval()
    cell = clip.visual.patch_size[0]

    frozen = work.progress >= FREEZE
    if frozen:
        freeze_norms(loftup)
    due, scores = work.spent + 60 * args.validate_minutes, {}
    for step in work.steps():
        if not frozen and work.progress >= FREEZE:
            frozen = True
            recalibrate(loftup, [example.image for example in source.pool], rng)
            freeze_norms(loftup)
        rate = work.cosine(args.lr)
        examples = source.batch(args.images)
        starts = [
            choose_windows(e.masks, rng, count=args.windows, side=args.side, cell=cell)
            for e in examples
        ]
        images = torch.stack([e.image for e in examples])
        features = torch.stack([e.features for e in examples])
        with torch.autocast("cpu", torch.bfloat16):
            output = upsample_windows(loftup, features, images, starts, args.side)
        terms = loss_terms(loftup, output.float(), examples, starts, scale)
        loss = sum(WEIGHTS[name] * term for name, term in terms.items())
        loftup.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(learned, 1.0, error_if_nonfinite=True)
        optimizer.step(rate)
        average.update(loftup)
        validated = work.spent > due or work.progress >= 1
        if validated:
            due = work.spent + 60 * args.validate_minutes
            judged.load_state_dict(average.weights)
            if not frozen:
                recalibrate(judged, [example.image for example in source.pool], rng)
            scores = validate(judged, clip, namer, world, args.validate_scenes)
            logger.info("step %d: %s", step, {k: round(v, 1) for k, v in scores.items()})
        if validated or step % 20 == 0:
            values = {name: term.item() for name, term in terms.items()}
            row = dict.fromkeys(SCORES, math.nan) | (scores if validated else {})
            work.log(lr=rate, **values, **row)
    return 0
