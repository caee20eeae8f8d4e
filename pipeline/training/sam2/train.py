"""Train the `tiny` preset's SAM 2 on rendered scenes, on a CPU or a GPU.

    python scripts/train_tiny.py sam2 --output runs/sam2 --steps 5000
    python scripts/train_tiny.py sam2 --output runs/sam2 --export models/tiny/sam2.safetensors

The loss follows SAM (Kirillov et al. 2023, appendix A): focal and dice loss on the best of three
masks and an L2 loss on the predicted IoU. SAM's 20 : 1 weights, from the first step, drive a
small model to empty masks; here the pixel loss starts as cross-entropy with equal weight for
object and background, moves to a focal loss per object area, and weighs as much as dice.

All chance in a step follows from the seed and the step's number, so a resumed run sees the same
scenes and prompts as an uninterrupted one; with `--steps` and on a CPU it ends at the same bits.

Shapes: B images, N objects of all images together, L side of the mask logits, S image side.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from models.backbones.base import IMAGENET_MEAN, IMAGENET_STD, normalise
from models.device import autocast
from models.sam2_networks import build_sam2
from models.weight_files import read_state_dict
from models.weights import load_strictly

from ...world.scenes import load_world
from ..loop import Run, add_run_options, start_run
from ..optimizers import muon_adamw
from ..weights import MovingAverage, save_weights
from .examples import Batch
from .scenes import SceneSource
from .validation import SCORES, validate

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base

logger = logging.getLogger(__name__)

CONFIG = Path(__file__).resolve().parents[3] / "models" / "tiny" / "sam2_tiny.yaml"
LOG_EVERY = 25  # steps


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this training's options."""
    add_run_options(parser, output="runs/sam2", lr=5e-4)
    parser.add_argument("--init", type=Path, help="weights to start from instead of random ones")
    parser.add_argument("--images", type=int, default=4, help="images per step; half are repeats")
    parser.add_argument("--objects", type=int, default=6, help="most objects per image")
    parser.add_argument(
        "--precision", choices=("bf16", "fp32"), default="bf16", help="bf16 pays with AMX, on GPUs"
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
def precision(name: str, device: torch.device) -> Iterator[None]:
    """Autocast of the forward pass: `bf16` (on CPUs, attention stays in float32) or `fp32`."""
    attention = Float32Attention() if device.type == "cpu" else contextlib.nullcontext()
    with autocast(device, torch.bfloat16 if name == "bf16" else torch.float32), attention:
        yield


def predict(model: SAM2Base, batch: Batch) -> tuple[Tensor, Tensor]:
    """Mask logits (N, 4, L, L) and predicted IoU (N, 4): the single mask, then the three."""
    images = normalise(batch.images.float() / 255, IMAGENET_MEAN, IMAGENET_STD)
    images = images.contiguous(memory_format=torch.channels_last)
    fine, middle, embedding = model.forward_image(images)["backbone_fpn"]
    encoder = model.sam_prompt_encoder
    sparse, dense = encoder(
        points=(batch.points, batch.labels), boxes=None, masks=batch.mask_prompts
    )
    no_mask = encoder.no_mask_embed.weight.view(1, -1, 1, 1).to(dense.dtype)
    dense = torch.where(batch.has_mask.view(-1, 1, 1, 1), dense, no_mask)
    logits, iou = model.sam_mask_decoder.predict_masks(
        image_embeddings=embedding.index_select(0, batch.owner),
        image_pe=encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        repeat_image=False,
        high_res_features=[level.index_select(0, batch.owner) for level in (fine, middle)],
    )[:2]
    return logits.float(), iou.float()


def loss_terms(
    logits: Tensor, iou: Tensor, coverage: Tensor, focal_weight: float
) -> dict[str, Tensor]:
    """The losses of one step.

    Args:
        logits: (N, 4, L, L); iou: (N, 4) predicted.
        coverage: (N, 2L, 2L) in 0…1.
        focal_weight: 0 (balanced cross-entropy) … 1 (focal loss).

    Returns:
        Scalars `total`, `mask`, `iou`, and for the log `best` (mean IoU of the best mask).
    """
    # Judged as it will be used: upsampled. Where a logit's pixel is larger than the outline's
    # detail, this teaches it to place the crossing of zero between pixels.
    fine = F.interpolate(logits, scale_factor=2, mode="bilinear")  # (N, 4, 2L, 2L)
    target = coverage[:, None]
    probability = fine.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(fine, target.expand_as(fine), reduction="none")
    area = target.sum((-2, -1)).clamp(min=1)  # (N, 1)
    pixels = target.shape[-1] * target.shape[-2]
    focal = ((probability - target).square() * entropy).sum((-2, -1)) / (area + 32)
    if focal_weight < 1:
        weights = 0.5 * target / area[..., None, None]
        weights = weights + 0.5 * (1 - target) / (pixels - area).clamp(min=1)[..., None, None]
        balanced = (entropy * weights).sum((-2, -1))
        focal = (1 - focal_weight) * balanced + focal_weight * focal
    overlap = (probability * target).sum((-2, -1))
    # Squares in the denominator: the soft target itself is then the minimum.
    sizes = probability.square().sum((-2, -1)) + target.square().sum((-2, -1))
    dice = 1 - (2 * overlap + 4) / (sizes + 4)
    mask = focal + dice  # (N, 4)
    three = mask[:, 1:]
    # The best mask learns most, but all learn: which is taken later is a guess (predicted IoU).
    mask_loss = 0.6 * three.min(1).values + 0.4 * three.mean(1) + 0.3 * mask[:, 0]

    with torch.no_grad():
        found, true = fine > 0, target >= 0.5
        union = (found | true).sum((-2, -1)).clamp(min=1)
        true_iou = (found & true).sum((-2, -1)) / union  # (N, 4)
    iou_loss = F.mse_loss(iou, true_iou)
    total = mask_loss.mean() + 2 * iou_loss
    best = true_iou[:, 1:].max(1).values.mean()
    return {"total": total, "mask": mask_loss.mean(), "iou": iou_loss, "best": best}


def focal_weight(progress: float) -> float:
    """0 in the first tenth of training, 1 from 40 % on, linear between."""
    return min(max((progress - 0.1) / 0.3, 0.0), 1.0)


def run(args: argparse.Namespace) -> int:
    """Train, or export what is trained; returns the exit status."""
    device = start_run(args)
    model, judged = build_sam2(CONFIG, device).train(), build_sam2(CONFIG, device)
    if args.init:
        load_strictly(model, read_state_dict(args.init), args.init)
    optimizer, average = muon_adamw(model, args.lr), MovingAverage(model, 0.997)
    state = {"model": model, "optimizer": optimizer, "average": average}
    work = Run.from_options(args, state)
    if args.export:
        save_weights(average.weights, args.export, half=True)
        return 0

    world = load_world()
    source = SceneSource(
        world, args.seed, images=args.images, objects=args.objects, side=model.image_size
    )
    for step in work.steps():
        rate = work.rate(args.lr)
        batch = source.batch(step).to(device)
        with precision(args.precision, device):
            logits, iou = predict(model, batch)
        focal = 1.0 if args.init else focal_weight(work.progress)
        terms = loss_terms(logits, iou, batch.coverage, focal)
        model.zero_grad()
        terms["total"].backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0, error_if_nonfinite=True)
        optimizer.step(rate)
        average.update(model)
        scores = dict.fromkeys(SCORES, math.nan)
        if (step + 1) % args.validate_every == 0 or work.last(step):
            judged.load_state_dict(average.weights, strict=True)
            scores = validate(judged, world)
            logger.info("step %d: %s", step + 1, {k: round(v, 3) for k, v in scores.items()})
        if step % LOG_EVERY == 0 or not math.isnan(scores["miou"]):
            work.log(lr=rate, **{k: v.item() for k, v in terms.items()}, **scores)
    return 0
