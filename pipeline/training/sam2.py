"""Train the `tiny` preset's SAM 2 on rendered scenes, on a CPU in about an hour.

    python scripts/train_tiny.py sam2 --output runs/sam2 --minutes 75 --threads 1 --seed 1
    python scripts/train_tiny.py sam2 --output runs/sam2 --minutes 0 --resume \
        --export models/tiny/sam2.safetensors

The second command only writes the weights of the first (possibly still running). The learning
rate follows the share of the planned minutes that is used up, so a stopped run resumes where it
was with `--resume`.

The loss follows SAM (Kirillov et al. 2023, appendix A): focal and dice loss on the best of three
masks and an L2 loss on the predicted IoU. SAM's 20 : 1 weights, from the first step, drive a
small model to empty masks; here the pixel loss starts as cross-entropy with equal weight for
object and background, moves to a focal loss per object area, and weighs as much as dice.

Shapes: B images, N objects of all images together, L side of the mask logits, S image side.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import logging
import math
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from tqdm import tqdm

from models.sam2_masks import build_sam2, load_sam2_weights
from pipeline.world import Scene, World, load_world

from .sam2_examples import Batch, make_batch, mirror, random_scene
from .sam2_validation import validate

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base

logger = logging.getLogger(__name__)

CONFIG = Path(__file__).resolve().parents[2] / "models" / "tiny" / "sam2_tiny.yaml"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WARMUP_STEPS = 200
LOG_EVERY = 50
EMA_DECAY = 0.999
POOL = 64  # rendered scenes kept to be shown once more, mirrored


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this training's options."""
    parser.add_argument("--output", type=Path, required=True, help="folder of the run")
    parser.add_argument("--minutes", type=float, default=75.0, help="planned training time")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--seed", type=int, default=1, help="seed of weights and scenes")
    parser.add_argument("--resume", action="store_true", help="continue from OUTPUT/last.pt")
    parser.add_argument("--export", type=Path, help="write fp16 safetensors there at the end")
    parser.add_argument("--config", type=Path, default=CONFIG, help="SAM 2 configuration")
    parser.add_argument("--images", type=int, default=8, help="images per step")
    parser.add_argument("--objects", type=int, default=4, help="most objects per image")
    parser.add_argument("--lr", type=float, default=5e-4, help="highest learning rate")
    parser.add_argument("--save-minutes", type=float, default=2.0, help="between checkpoints")
    parser.add_argument("--validate-minutes", type=float, default=8.0, help="between validations")
    parser.add_argument(
        "--precision", choices=("bf16", "fp32"), default="bf16", help="bf16 pays with AVX-512/AMX"
    )


class Float32Attention(TorchFunctionMode):
    """Runs scaled dot-product attention in float32 inside bf16 autocast.

    On CPUs the bfloat16 kernel's backward pass takes three times as long as the float32 one.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            with torch.autocast("cpu", enabled=False):
                return func(*(tensor.float() for tensor in args), **kwargs)
        return func(*args, **kwargs)


@contextlib.contextmanager
def precision(name: str) -> Iterator[None]:
    """Autocast of the forward pass: `bf16` (attention stays in float32) or `fp32`."""
    if name == "fp32":
        yield
        return
    with torch.autocast("cpu", dtype=torch.bfloat16), Float32Attention():
        yield


def predict(model: SAM2Base, batch: Batch) -> tuple[Tensor, Tensor]:
    """Mask logits (N, 4, L, L) and predicted IoU (N, 4): the single mask, then the three."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    images = (batch.images.float() / 255 - mean) / std
    images = images.contiguous(memory_format=torch.channels_last)
    fine, middle, embedding = model.forward_image(images)["backbone_fpn"]
    encoder = model.sam_prompt_encoder
    sparse, dense = encoder(
        points=(batch.points, batch.labels), boxes=None, masks=batch.mask_prompts
    )
    no_mask = encoder.no_mask_embed.weight.view(1, -1, 1, 1).to(dense.dtype)
    dense = torch.where(batch.has_mask.view(-1, 1, 1, 1), dense, no_mask)
    logits, iou, _, _ = model.sam_mask_decoder.predict_masks(
        image_embeddings=embedding.index_select(0, batch.owner),
        image_pe=encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        repeat_image=False,
        high_res_features=[level.index_select(0, batch.owner) for level in (fine, middle)],
    )
    return logits.float(), iou.float()


def loss_terms(
    logits: Tensor, iou: Tensor, coverage: Tensor, focal_share: float
) -> dict[str, Tensor]:
    """The losses of one step.

    Args:
        logits: (N, 4, L, L); iou: (N, 4) predicted.
        coverage: (N, 2L, 2L) in 0…1.
        focal_share: 0 (balanced cross-entropy) … 1 (focal loss).

    Returns:
        Scalars `total`, `mask`, `iou`, and for the log `best` (mean IoU of the best mask).
    """
    target = F.avg_pool2d(coverage[:, None], 2)  # (N, 1, L, L), soft at the outline
    probability = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, target.expand_as(logits), reduction="none")
    area = target.sum((-2, -1)).clamp(min=1)  # (N, 1)
    pixels = target.shape[-1] * target.shape[-2]
    weights = 0.5 * target / area[..., None, None]
    weights = weights + 0.5 * (1 - target) / (pixels - area).clamp(min=1)[..., None, None]
    balanced = (entropy * weights).sum((-2, -1))
    focal = ((probability - target).abs().square() * entropy).sum((-2, -1)) / (area + 8)
    overlap = (probability * target).sum((-2, -1))
    # Squares in the denominator: the soft target itself is then the minimum.
    sizes = probability.square().sum((-2, -1)) + target.square().sum((-2, -1))
    dice = 1 - (2 * overlap + 1) / (sizes + 1)
    mask = (1 - focal_share) * balanced + focal_share * focal + dice  # (N, 4)
    three = mask[:, 1:]
    # The best mask learns most, but all learn: which is taken later is a guess (predicted IoU).
    mask_loss = 0.75 * three.min(1).values + 0.25 * three.mean(1) + 0.3 * mask[:, 0]

    with torch.no_grad():
        fine = F.interpolate(logits.detach(), scale_factor=2, mode="bilinear") > 0
        truth = (coverage >= 0.5)[:, None]
        union = (fine | truth).sum((-2, -1)).clamp(min=1)
        true_iou = (fine & truth).sum((-2, -1)) / union  # (N, 4)
    iou_loss = F.mse_loss(iou, true_iou)
    total = mask_loss.mean() + iou_loss
    best = true_iou[:, 1:].max(1).values.mean()
    return {"total": total, "mask": mask_loss.mean(), "iou": iou_loss, "best": best}


def focal_share(progress: float) -> float:
    """0 in the first tenth of training, 1 from 40 % on, linear between."""
    return min(max((progress - 0.1) / 0.3, 0.0), 1.0)


def learning_rate(highest: float, step: int, progress: float) -> float:
    """Linear warm-up over steps, cosine to 1 % over the planned time."""
    cosine = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return highest * min((step + 1) / WARMUP_STEPS, 1.0) * cosine


class SceneSource:
    """New scenes, half of each batch, and earlier ones mirrored: rendering costs a fifth of a
    step otherwise."""

    def __init__(self, world: World, seed: int, images: int, objects: int, side: int):
        self.world, self.seed = world, seed
        self.images, self.objects, self.side = images, objects, side
        self.pool: list[Scene] = []

    def batch(self, step: int) -> Batch:
        """The batch of one step. The step names the new scenes; the pool starts empty."""
        # Three numbers: never the two-number seeds of the validation scenes.
        rng = np.random.default_rng([self.seed, step, 2])
        again = self.images // 2 if len(self.pool) == POOL else 0
        fresh = []
        while len(fresh) < self.images - again:
            scene = random_scene(self.world, rng)
            if scene.objects:
                fresh.append(scene)
        old = []
        for slot in rng.permutation(POOL)[:again].tolist():
            old.append(mirror(self.pool[slot]))
            self.pool[slot] = fresh[len(old) - 1]
        if not again:
            self.pool = (self.pool + fresh)[-POOL:]
        return make_batch(fresh + old, rng, side=self.side, most_objects=self.objects)


class Training:
    """Model, average, optimiser and clock of one run; saved as one file."""

    def __init__(self, args: argparse.Namespace):
        torch.manual_seed(args.seed)
        self.config = Path(args.config)
        self.model = build_sam2(self.config, "cpu").train()
        self.average = build_sam2(self.config, "cpu")
        load_sam2_weights(self.average, self.model.state_dict())
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        others = [p for p in self.model.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}],
            lr=args.lr,
            fused=True,
        )
        self.step, self.elapsed = 0, 0.0

    def save(self, path: Path) -> None:
        """Write everything; a run stopped while writing keeps its previous file."""
        partial = path.with_suffix(".partial")
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "elapsed": self.elapsed,
        }
        torch.save(state, partial)
        partial.replace(path)

    def load(self, path: Path) -> None:
        """Take up a saved run."""
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist: there is no run to resume there.")
        state = torch.load(path, map_location="cpu", weights_only=True)
        load_sam2_weights(self.model, state["model"])
        load_sam2_weights(self.average, state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.elapsed = state["step"], state["elapsed"]

    def update(self, batch: Batch, args: argparse.Namespace, progress: float) -> dict[str, float]:
        """One optimiser step; returns the logged values."""
        lr = learning_rate(args.lr, self.step, progress)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        with precision(args.precision):
            logits, iou = predict(self.model, batch)
        terms = loss_terms(logits, iou, batch.coverage, focal_share(progress))
        self.optimizer.zero_grad(set_to_none=True)
        terms["total"].backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        if not torch.isfinite(norm):
            raise FloatingPointError(f"gradient norm {norm.item()} at step {self.step}")
        self.optimizer.step()
        # Early on the average must forget the random start quickly.
        decay = min(EMA_DECAY, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.average.parameters()), list(self.model.parameters()), 1 - decay
            )
        self.step += 1
        values = {name: value.item() for name, value in terms.items()}
        return {**values, "lr": lr, "grad_norm": norm.item()}

    def export(self, path: Path) -> None:
        """Write the averaged weights as float16 safetensors, keys as in SAM 2's own files."""
        from safetensors.torch import save_file

        path.parent.mkdir(parents=True, exist_ok=True)
        state = self.average.state_dict()
        save_file({name: value.half().contiguous() for name, value in state.items()}, path)
        logger.info("wrote %s (step %d)", path, self.step)


def append_row(path: Path, row: dict[str, float]) -> None:
    """Append to a CSV file, with a header if it is new."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(row))
        if new:
            writer.writeheader()
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})


def train(training: Training, args: argparse.Namespace, world: World) -> None:
    """Train until the planned minutes are used up or SIGTERM / SIGINT asks to stop."""
    budget = args.minutes * 60
    source = SceneSource(world, args.seed, args.images, args.objects, training.model.image_size)
    stop: list[int] = []
    previous = {s: signal.signal(s, lambda n, _: stop.append(n)) for s in SIGNALS}
    start = time.monotonic() - training.elapsed
    saved = validated = training.elapsed
    sums: dict[str, float] = {}
    bar = tqdm(total=round(budget), initial=round(training.elapsed), unit="s", mininterval=10)
    try:
        while training.elapsed < budget and not stop:
            batch = source.batch(training.step)
            values = training.update(batch, args, training.elapsed / budget)
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + value / LOG_EVERY
            training.elapsed = time.monotonic() - start
            if training.step % LOG_EVERY == 0:
                row = {"step": training.step, "seconds": training.elapsed, **sums}
                append_row(args.output / "log.csv", row)
                bar.set_postfix(step=training.step, loss=sums["total"], best=sums["best"])
                bar.update(round(training.elapsed) - bar.n)
                sums = {}
            done = training.elapsed >= budget
            if done or training.elapsed - validated >= args.validate_minutes * 60:
                scores = validate(training.average, world)
                row = {"step": training.step, "seconds": training.elapsed, **scores}
                append_row(args.output / "validation.csv", row)
                logger.info("validation %s", {k: round(v, 4) for k, v in row.items()})
                validated = training.elapsed = time.monotonic() - start
            if training.elapsed - saved >= args.save_minutes * 60:
                training.save(args.output / "last.pt")
                saved = training.elapsed
    finally:
        bar.close()
        for number, handler in previous.items():
            signal.signal(number, handler)
    training.save(args.output / "last.pt")
    if stop:
        logger.info("stopped at step %d; --resume continues", training.step)


SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run(args: argparse.Namespace) -> int:
    """Train, and export if asked; the exit status."""
    torch.set_num_threads(args.threads)
    checkpoint = args.output / "last.pt"
    if checkpoint.exists() and not args.resume:
        raise ValueError(f"{checkpoint} exists: add --resume, or choose another --output.")
    args.output.mkdir(parents=True, exist_ok=True)
    training = Training(args)
    if args.resume:
        training.load(checkpoint)
    # Nothing left to train: leave the folder alone, another process may be writing there.
    if training.elapsed < args.minutes * 60:
        train(training, args, load_world())
    if args.export:
        training.export(args.export)
    return 0
