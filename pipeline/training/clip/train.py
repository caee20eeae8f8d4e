"""Train the tiny CLIP: an open_clip CLIP with a small ViT/16, on rendered scenes.

CLIP's own objective (image and caption agree) is kept, but a few core-hours of it give no dense
features. Most of the signal is therefore supervision from the exact masks, through the very path
the segmenter uses: every patch, and every object's region, must be nearest to its own name among
the names of all things and surfaces of the world. The two other attention variants get the patch
term at a smaller weight, so that all three can be compared.

Shapes: B images, P patches of one image, Q names (one per class), C joint width.
"""

from __future__ import annotations

import argparse
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.clip_dense import dense_features, forward_trunk, last_block, project, visual_tower
from models.text import DEFAULT_TEMPLATES, Tokenizer, encode_texts
from models.weights import build_clip

from ...evaluation.metrics import confusion, mean_iou
from ...world.scenes import World, load_world
from ..loop import Ahead, Run, add_run_options, start_run, weighted_sum
from ..naming import BACKGROUND, Namer, held_out_scene, upsample
from ..optimizers import muon_adamw
from ..weights import MovingAverage, save_weights
from .examples import PLAIN_TEMPLATES, SIDE, Batch, draw_batch, to_input

if TYPE_CHECKING:
    from open_clip import CLIP

logger = logging.getLogger(__name__)

CONFIG = Path(__file__).resolve().parents[3] / "models" / "tiny" / "clip"


def losses(clip: CLIP, batch: Batch, *, every: bool = True) -> dict[str, Tensor]:
    """The terms of one step; without `every`, only those of the csa path."""
    texts = torch.cat([batch.tokens, batch.captions]) if every else batch.tokens
    text = F.normalize(encode_texts(clip, texts).float(), dim=-1)
    text, captions = text[: len(batch.tokens)], text[len(batch.tokens) :]
    scale = clip.logit_scale.exp()
    visual = visual_tower(clip)
    trunk = forward_trunk(visual, batch.image)
    out: dict[str, Tensor] = {}
    for attention in ("csa", "vanilla", "maskclip") if every else ("csa",):
        joint = project(visual, last_block(visual, trunk, attention)).float()
        joint = F.normalize(joint, dim=-1)
        patches = joint[:, 1:]  # (B, P, C)
        log_probs = F.log_softmax(scale * patches @ text.T, dim=-1)
        out[attention] = -(batch.shares * log_probs).sum()
        if attention == "vanilla":
            logits = scale * joint[:, 0] @ captions.T  # (B, B)
            same = torch.arange(len(logits), device=logits.device)
            out["caption"] = (F.cross_entropy(logits, same) + F.cross_entropy(logits.T, same)) / 2
        if attention == "csa":
            regions = [m @ vectors for m, vectors in zip(batch.members, patches, strict=True)]
            region = F.normalize(torch.cat(regions), dim=-1)  # (objects, C)
            out["region"] = F.cross_entropy(scale * region @ text.T, torch.cat(batch.labels))
    return out


# Where the other attention variants are trained (every fourth step), they weigh four times 0.1.
WEIGHTS = {"csa": 1.0, "region": 1.0, "vanilla": 0.4, "maskclip": 0.4, "caption": 0.2}


@torch.no_grad()
def validate(clip: CLIP, tokenizer: Tokenizer, world: World, count: int = 48) -> float:
    """mIoU (percent) of whole 224² held-out scenes: bilinear scores, VOC nouns and background."""
    namer = Namer(clip, tokenizer, world)
    matrix = np.zeros((namer.count, namer.count), np.int64)
    for i in range(count):
        scene = held_out_scene(world, i, (SIDE, SIDE))
        image = to_input([scene.image], clip).to(clip.logit_scale.device)
        scores = namer.scores(dense_features(clip, image)[0])
        predicted = upsample(scores, (SIDE, SIDE)).argmax(0).cpu().numpy()
        matrix += confusion(namer.ground_truth(scene), predicted, namer.count)
    return mean_iou(matrix)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this training's options."""
    add_run_options(parser, output="runs/clip", lr=1.5e-3)
    parser.add_argument("--workers", type=int, default=1, help="threads that render scenes")
    parser.add_argument("--batch", type=int, default=12, help="scenes per step")


def export(weights: dict[str, Tensor], seen: Tensor, path: Path) -> None:
    """Write half-precision weights; rows of tokens no text of the world has become zero.

    An unknown word then adds nothing to a text instead of noise, and the file packs well.
    """
    table = weights["token_embedding.weight"]
    table = torch.where(seen[:, None].to(table.device), table, 0.0)
    save_weights({**weights, "token_embedding.weight": table}, path, half=True)


def seen_tokens(world: World, tokenizer: Tokenizer) -> Tensor:
    """(V,) bool: tokens that occur in any training text."""
    seen = torch.zeros(49408, dtype=torch.bool)
    words = [*(name for names in (*world.names.values(), *world.stuff) for name in names)]
    texts = [f"{word} and a {word}" for word in (*words, *BACKGROUND)]
    texts += [t("thing") for t in DEFAULT_TEMPLATES] + [t.format("a") for t in PLAIN_TEMPLATES]
    seen[tokenizer(texts)] = True
    return seen


def run(args: argparse.Namespace) -> int:
    """Train, or export what is trained; returns the exit status."""
    device, world = start_run(args), load_world()
    built, tokenizer = build_clip(CONFIG)
    clip = cast("CLIP", built)
    clip.logit_scale.data.fill_(math.log(20))
    clip.to(device)
    optimizer, average = muon_adamw(clip, args.lr), MovingAverage(clip)
    state = {"model": clip, "optimizer": optimizer, "average": average}
    work = Run.from_options(args, state)
    if args.export:
        export(average.weights, seen_tokens(world, tokenizer), args.export)
        return 0

    def draw(step: int) -> Batch:
        progress = work.progress_at(step)
        return draw_batch(clip, tokenizer, world, args.seed, step, progress, args.batch)

    with Ahead(draw, args.workers) as batches:
        for step in work.steps():
            batch = batches[step].to(device)
            with torch.autocast(device.type, torch.bfloat16):
                terms = losses(clip, batch, every=step % 4 == 0)
            rate = work.rate(args.lr)
            clip.zero_grad()
            weighted_sum(terms, WEIGHTS).backward()
            nn.utils.clip_grad_norm_(clip.parameters(), 1.0)
            optimizer.step(rate)
            clip.logit_scale.data.clamp_(max=math.log(100))
            average.update(clip)
            miou = math.nan
            if (step + 1) % args.validate_every == 0 or work.last(step):
                trained = {k: v.clone() for k, v in clip.state_dict().items()}
                clip.load_state_dict(average.weights)
                miou = validate(clip.eval(), tokenizer, world)
                clip.load_state_dict(trained)
                clip.train()
                logger.info("step %d: held-out dense mIoU %.1f", step + 1, miou)
            if step % 20 == 0 or not math.isnan(miou):
                values = {n: terms[n].item() if n in terms else math.nan for n in WEIGHTS}
                work.log(lr=rate, scale=clip.logit_scale.exp().item(), **values, mIoU=miou)
    return 0
