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
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from models.device import pick_device
from models.sam2_networks import build_sam2
from models.weight_files import read_state_dict
from models.weights import load_strictly

from ...world.scenes import load_world
from ..loop import MovingAverage, Run
from ..optimizers import MuonAdamW
from .examples import Batch
from .scenes import SceneSource
from .validation import SCORES, validate

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base

logger = logging.getLogger(__name__)

CONFIG = Path(__file__).resolve().parents[3] / "models" / "tiny" / "sam2_tiny.yaml"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LOG_EVERY = 25  # steps


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this training's options."""
    parser.add_argument("--output", type=Path, default=Path("runs/sam2"), help="run folder")
    parser.add_argument("--steps", type=int, help="length of the run, or ...")
    parser.add_argument("--minutes", type=float, help="... its time, of all parts together")
    parser.add_argument("--device", help="cuda, mps or cpu (default: the best available)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--seed", type=int, default=1, help="seed of weights and scenes")
    parser.add_argument("--resume", action="store_true", help="continue from OUTPUT/last.pt")
    parser.add_argument(
        "--export", type=Path, help="train nothing: write OUTPUT's average as fp16 safetensors"
    )
    parser.add_argument("--init", type=Path, help="weights to start from instead of random ones")
    parser.add_argument("--images", type=int, default=4, help="images per step; half are repeats")
    parser.add_argument("--objects", type=int, default=6, help="most objects per image")
    parser.add_argument("--lr", type=float, default=5e-4, help="highest learning rate")
    parser.add_argument("--validate-every", type=int, default=500, help="steps between validations")
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
    if name == "fp32":
        yield
        return
    attention = Float32Attention() if device.type == "cpu" else contextlib.nullcontext()
    with torch.autocast(device.type, dtype=torch.bfloat16), attention:
        yield


def predict(model: SAM2Base, batch: Batch) -> tuple[Tensor, Tensor]:
    """Mask logits (N, 4, L, L) and predicted IoU (N, 4): the single mask, then the three."""
    images = batch.images.float() / 255
    mean, std = (images.new_tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    images = (images - mean) / std
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
    # Judged as it will be used: enlarged. Where a logit's cell is larger than the outline's
    # detail, this teaches it to place the crossing of zero between cells.
    fine = F.interpolate(logits, scale_factor=2, mode="bilinear")  # (N, 4, 2L, 2L)
    target = coverage[:, None]
    probability = fine.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(fine, target.expand_as(fine), reduction="none")
    area = target.sum((-2, -1)).clamp(min=1)  # (N, 1)
    pixels = target.shape[-1] * target.shape[-2]
    focal = ((probability - target).square() * entropy).sum((-2, -1)) / (area + 32)
    if focal_share < 1:
        weights = 0.5 * target / area[..., None, None]
        weights = weights + 0.5 * (1 - target) / (pixels - area).clamp(min=1)[..., None, None]
        balanced = (entropy * weights).sum((-2, -1))
        focal = (1 - focal_share) * balanced + focal_share * focal
    overlap = (probability * target).sum((-2, -1))
    # Squares in the denominator: the soft target itself is then the minimum.
    sizes = probability.square().sum((-2, -1)) + target.square().sum((-2, -1))
    dice = 1 - (2 * overlap + 4) / (sizes + 4)
    mask = focal + dice  # (N, 4)
    three = mask[:, 1:]
    # The best mask learns most, but all learn: which is taken later is a guess (predicted IoU).
    mask_loss = 0.6 * three.min(1).values + 0.4 * three.mean(1) + 0.3 * mask[:, 0]

    with torch.no_grad():
        found, truth = fine > 0, target >= 0.5
        union = (found | truth).sum((-2, -1)).clamp(min=1)
        true_iou = (found & truth).sum((-2, -1)) / union  # (N, 4)
    iou_loss = F.mse_loss(iou, true_iou)
    total = mask_loss.mean() + 2 * iou_loss
    best = true_iou[:, 1:].max(1).values.mean()
    return {"total": total, "mask": mask_loss.mean(), "iou": iou_loss, "best": best}


def focal_share(progress: float) -> float:
    """0 in the first tenth of training, 1 from 40 % on, linear between."""
    return min(max((progress - 0.1) / 0.3, 0.0), 1.0)


def export(weights: dict[str, Tensor], path: Path) -> None:
    """Write float16 safetensors with the names of SAM 2's own checkpoints."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.half().contiguous() for name, value in weights.items()}, path)
    logger.info("wrote %s", path)


def run(args: argparse.Namespace) -> int:
    """Train, or export what is trained; returns the exit status."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    device = pick_device(args.device)
    model, judged = build_sam2(CONFIG, device).train(), build_sam2(CONFIG, device)
    if args.init:
        load_strictly(model, read_state_dict(args.init), args.init)
    optimizer, average = MuonAdamW(model, args.lr), MovingAverage(model, 0.997)
    state = {"model": model, "optimizer": optimizer, "average": average}
    work = Run.from_options(args, state)
    if args.export:
        export(average.weights, args.export)
        return 0

    world = load_world()
    source = SceneSource(
        world, args.seed, images=args.images, objects=args.objects, side=model.image_size
    )
    for step in work.steps():
        rate = work.cosine(args.lr)
        batch = source.batch(step).to(device)
        with precision(args.precision, device):
            logits, iou = predict(model, batch)
        share = 1.0 if args.init else focal_share(work.progress)
        terms = loss_terms(logits, iou, batch.coverage, share)
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
