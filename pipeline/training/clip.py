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
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from models.clip_dense import dense_features, forward_trunk, last_block, project
from models.device import pick_device
from models.text import DEFAULT_TEMPLATES, encode_texts
from models.weights import build_clip

from ..metrics import confusion, mean_iou
from ..world import VARIED, Scene, World, load_world, render_scene
from .loop import MovingAverage, Run
from .memory import freed_memory_returned
from .optimizers import MuonAdamW
from .validation import BACKGROUND, EVAL_NOUNS, Namer, enlarge, held_out_scene

logger = logging.getLogger(__name__)

SIDE, PATCH = 224, 16
TRAINING = 10_000  # first number of the scenes' seeds; held-out scenes have another
PLAIN_TEMPLATES = ("{}", "a {}", "a photo of a {}.", "the {}")


# What users of VOC's classes meet most; a person or a building can look like many glyphs.
OFTEN = (*EVAL_NOUNS, "person", "person", "building")


class Names:
    """The classes of the world, things first, and the random texts that stand for them.

    `rng` and `progress` are those of the step that is drawn.
    """

    def __init__(self, world: World, tokenizer) -> None:
        self.things = world.nouns
        self.names = [*world.names.values(), *world.stuff]
        self.index = {noun: i for i, noun in enumerate(world.nouns)}
        self.stuff = len(world.nouns)
        self.tokenizer = tokenizer
        self.rng, self.progress = np.random.default_rng(0), 0.0
        self._tokens: dict[str, Tensor] = {}

    def text(self, name: str, *, plain: bool) -> str:
        if plain:
            return PLAIN_TEMPLATES[int(self.rng.integers(len(PLAIN_TEMPLATES)))].format(name)
        return DEFAULT_TEMPLATES[int(self.rng.integers(len(DEFAULT_TEMPLATES)))](name)

    def any_name(self, i: int) -> str:
        """Mostly the label itself at first, later any of its names."""
        names = self.names[i]
        if self.rng.random() < 0.8 - 0.5 * self.progress:
            return names[0]
        return names[int(self.rng.integers(len(names)))]

    def tokens(self, texts: list[str]) -> Tensor:
        for text in texts:
            if text not in self._tokens:
                self._tokens[text] = self.tokenizer([text])[0]
        return torch.stack([self._tokens[text] for text in texts])

    def draw(self) -> tuple[Tensor, bool]:
        """Tokens (Q, L), one text per class; and whether all surfaces share the last text."""
        merged = bool(self.rng.random() < 0.3)
        chosen = [self.any_name(i) for i in range(self.stuff if merged else len(self.names))]
        if merged:
            chosen.append(str(self.rng.choice(BACKGROUND)))
        # The longest text sets the cost of all: the long templates come together, now and then.
        plain = bool(self.rng.random() < 0.75)
        return self.tokens([self.text(name, plain=plain) for name in chosen]), merged


def training_scene(
    world: World, rng: np.random.Generator, progress: float = 1.0, *, side: int = SIDE
) -> Scene:
    """A window as the segmenter sees them: at most half the time an enlarged part of a scene.

    Small glyphs come in as training proceeds: from scratch, large ones are learnt much faster. A
    scene of another side shows the same, in more or fewer pixels.
    """
    nouns = OFTEN if rng.random() < 0.6 else None
    least = 48.0 - 32.0 * min(1.0, progress / 0.6)
    glyphs = (least * side / SIDE, 150.0 * side / SIDE)
    scene = render_scene(
        world,
        rng,
        size=(side, side),
        objects=(4, 10),
        nouns=nouns,
        side=glyphs,
        varied=rng.random() < VARIED,
    )
    if rng.random() < 0.5:
        return scene
    part = round(side / rng.uniform(1.0, 1.7))
    top, left = rng.integers(0, side - part + 1, 2)
    area = np.s_[top : top + part, left : left + part]

    def enlarge(array: np.ndarray, how: int) -> np.ndarray:
        return cv2.resize(np.ascontiguousarray(array[area]), (side, side), interpolation=how)

    return Scene(
        image=enlarge(scene.image, cv2.INTER_LINEAR),
        instances=enlarge(scene.instances, cv2.INTER_NEAREST),
        objects=scene.objects,
        stuff=enlarge(scene.stuff, cv2.INTER_NEAREST),
    )


def patch_targets(scene: Scene, names: Names, *, merged: bool) -> tuple[np.ndarray, np.ndarray]:
    """Area shares: of every class in each patch (P, Q), of every object in each patch (N, P)."""
    n = len(scene.objects)
    objects = np.array([names.index[noun] for noun in scene.objects], np.int64)
    surfaces = names.stuff + (0 if merged else scene.stuff.astype(np.int64))
    labels = np.where(
        scene.instances > 0, objects[scene.instances - 1] if n else 0, surfaces
    )  # (H, W)
    grid = SIDE // PATCH

    def by_patch(array: np.ndarray) -> np.ndarray:
        cells = array.reshape(grid, PATCH, grid, PATCH).transpose(0, 2, 1, 3)
        return cells.reshape(grid * grid, PATCH * PATCH)

    count = names.stuff + (1 if merged else len(names.names) - names.stuff)
    patches = by_patch(labels)
    rows = np.arange(len(patches))[:, None]
    shares = np.bincount((rows * count + patches).ravel(), minlength=len(patches) * count)
    inst = by_patch(scene.instances.astype(np.int64))
    members = np.bincount((rows * (n + 1) + inst).ravel(), minlength=len(patches) * (n + 1))
    shares = shares.reshape(len(patches), count).astype(np.float32) / PATCH**2
    members = members.reshape(len(patches), n + 1)[:, 1:].T.astype(np.float32) / PATCH**2
    return shares, members


def normalise(images: list[np.ndarray], clip: nn.Module) -> Tensor:
    """uint8 pictures to the (B, 3, H, W) float input of `clip`."""
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    mean = torch.tensor(clip.visual.image_mean).view(3, 1, 1)
    std = torch.tensor(clip.visual.image_std).view(3, 1, 1)
    return (batch - mean) / std


def caption(scene: Scene, names: Names) -> str:
    """ "a dog and a car": the two largest objects, or the surface where there is none."""
    areas = np.bincount(scene.instances.ravel(), minlength=len(scene.objects) + 1)[1:]
    order = np.argsort(-areas)[:2]
    if not len(order):
        return names.text(names.names[names.stuff + int(scene.stuff[0, 0])][0], plain=True)
    nouns = [names.any_name(names.index[scene.objects[i]]) for i in order]
    return names.text(" and a ".join(nouns), plain=True)


@dataclass(frozen=True)
class Batch:
    """One step's scenes and texts."""

    tokens: Tensor  # (Q, L), one text per class
    captions: Tensor  # (B, L)
    image: Tensor  # (B, 3, H, W), normalised
    shares: Tensor  # (B, P, Q), the classes' shares of each patch; sums to one over everything
    members: tuple[Tensor, ...]  # per image (N, P), share of each patch that each object covers
    labels: tuple[Tensor, ...]  # per image (N,) int64, the objects' classes

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(
            *(part.to(device) for part in (self.tokens, self.captions, self.image, self.shares)),
            members=tuple(part.to(device) for part in self.members),
            labels=tuple(part.to(device) for part in self.labels),
        )


def make_batch(clip: nn.Module, names: Names, world: World, count: int) -> Batch:
    """Render `count` scenes and draw the texts of a step."""
    tokens, merged = names.draw()
    scenes = [training_scene(world, names.rng, names.progress) for _ in range(count)]
    targets = [patch_targets(scene, names, merged=merged) for scene in scenes]
    shares = torch.from_numpy(np.stack([t[0] for t in targets]))  # (B, P, Q)
    things = torch.arange(shares.shape[2]) < names.stuff
    shares = shares * torch.where(things, 1.0, SURFACE_WEIGHT)
    members, labels = [], []
    for scene, (_, covered) in zip(scenes, targets, strict=True):
        keep = covered.sum(1) * PATCH**2 >= 60  # pixels: the rest is too small to be named
        members.append(torch.from_numpy(covered[keep]))
        nouns = np.array([names.index[noun] for noun in scene.objects], np.int64)
        labels.append(torch.from_numpy(nouns[keep]))
    return Batch(
        tokens=tokens,
        captions=names.tokens([caption(scene, names) for scene in scenes]),
        image=normalise([scene.image for scene in scenes], clip),
        shares=shares / shares.sum(),
        members=tuple(members),
        labels=tuple(labels),
    )


def losses(clip: nn.Module, batch: Batch, *, every: bool = True) -> dict[str, Tensor]:
    """The terms of one step; without `every`, only those of the csa path."""
    texts = torch.cat([batch.tokens, batch.captions]) if every else batch.tokens
    text = F.normalize(encode_texts(clip, texts).float(), dim=-1)
    text, captions = text[: len(batch.tokens)], text[len(batch.tokens) :]
    scale = clip.logit_scale.exp()
    trunk = forward_trunk(clip.visual, batch.image)
    out: dict[str, Tensor] = {}
    for attention in ("csa", "vanilla", "maskclip") if every else ("csa",):
        joint = F.normalize(
            project(clip.visual, last_block(clip.visual, trunk, attention)).float(), dim=-1
        )
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
SURFACE_WEIGHT = 0.2  # most patches show no thing: they would drown the others


@torch.no_grad()
def validate(clip: nn.Module, tokenizer, world: World, count: int = 48) -> float:
    """mIoU (percent) of whole 224² held-out scenes: bilinear scores, VOC nouns and background."""
    namer = Namer(clip, tokenizer, world)
    matrix = np.zeros((namer.count, namer.count), np.int64)
    for i in range(count):
        scene = held_out_scene(world, i, (SIDE, SIDE))
        image = normalise([scene.image], clip).to(clip.logit_scale.device)
        scores = namer.scores(dense_features(clip, image)[0])
        predicted = enlarge(scores, (SIDE, SIDE)).argmax(0).cpu().numpy()
        matrix += confusion(namer.truth(scene), predicted, namer.count)
    return mean_iou(matrix)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, default=Path("runs/clip"), help="run folder")
    parser.add_argument("--steps", type=int, help="length of the run, or ...")
    parser.add_argument("--minutes", type=float, help="... its time, of all parts together")
    parser.add_argument("--device", help="cuda, mps or cpu (default: the best available)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--workers", type=int, default=1, help="threads that render scenes")
    parser.add_argument("--batch", type=int, default=12, help="scenes per step")
    parser.add_argument("--lr", type=float, default=1.5e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=1, help="seed of weights and scenes")
    parser.add_argument("--validate-every", type=int, default=500, help="steps between validations")
    parser.add_argument("--resume", action="store_true", help="continue from OUTPUT/last.pt")
    parser.add_argument("--export", type=Path, help="only write the averaged weights to this file")


def export(weights: dict[str, Tensor], seen: Tensor, path: Path) -> None:
    """Write half-precision weights; rows of tokens no text of the world has become zero.

    An unknown word then adds nothing to a text instead of noise, and the file packs well.
    """
    weights = {k: v.cpu().half() if v.is_floating_point() else v.cpu() for k, v in weights.items()}
    table = weights["token_embedding.weight"]
    weights["token_embedding.weight"] = torch.where(seen[:, None], table, torch.zeros(()).half())
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in weights.items()}, str(path))
    logger.info("wrote %s (%.1f MB)", path, path.stat().st_size / 1e6)


def seen_tokens(names: Names) -> Tensor:
    """(V,) bool: tokens that occur in any training text."""
    seen = torch.zeros(49408, dtype=torch.bool)
    words = [name for row in names.names for name in row] + list(BACKGROUND)
    texts = [f"{word} and a {word}" for word in words]
    texts += [t("thing") for t in DEFAULT_TEMPLATES] + [t.format("a") for t in PLAIN_TEMPLATES]
    seen[torch.cat([names.tokenizer([text])[0] for text in texts])] = True
    return seen


class Batches:
    """Every step's batch, a function of the seed and the step; the next ones are drawn ahead.

    With a budget of steps a resumed run therefore sees what an uninterrupted one sees.
    """

    def __init__(
        self, clip: nn.Module, tokenizer, world: World, work: Run, args: argparse.Namespace
    ) -> None:
        self.clip, self.tokenizer, self.world, self.work = clip, tokenizer, world, work
        self.seed, self.count, self.ahead = args.seed, args.batch, args.workers
        self._threads = ThreadPoolExecutor(args.workers)
        self._coming: dict[int, Future[Batch]] = {}

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)

    def __getitem__(self, step: int) -> Batch:
        for number in range(step, step + self.ahead + 1):
            if number not in self._coming:
                self._coming[number] = self._threads.submit(self._draw, number)
        return self._coming.pop(step).result()

    def _draw(self, step: int) -> Batch:
        names = Names(self.world, self.tokenizer)
        names.rng = np.random.default_rng([TRAINING, self.seed, step])
        names.progress = self.work.progress_at(step)
        return make_batch(self.clip, names, self.world, self.count)


def run(args: argparse.Namespace) -> int:
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    device = pick_device(args.device)
    world = load_world()
    folder = Path(__file__).resolve().parents[2] / "models" / "tiny" / "clip"
    clip, tokenizer = build_clip(folder)
    clip.logit_scale.data.fill_(math.log(20))
    clip.to(device)
    optimizer, average = MuonAdamW(clip, args.lr), MovingAverage(clip)
    state = {"model": clip, "optimizer": optimizer, "average": average}
    work = Run.from_options(args, state)
    if args.export:
        export(average.weights, seen_tokens(Names(world, tokenizer)), args.export)
        return 0

    # The texts' lengths and the number of objects differ from step to step.
    with freed_memory_returned(), Batches(clip, tokenizer, world, work, args) as batches:
        for step in work.steps():
            batch = batches[step].to(device)
            with torch.autocast(device.type, torch.bfloat16):
                terms = losses(clip, batch, every=step % 4 == 0)
            rate = work.cosine(args.lr)
            loss = sum(WEIGHTS[name] * term for name, term in terms.items())
            clip.zero_grad()
            loss.backward()
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
                values = {
                    name: terms[name].item() if name in terms else math.nan for name in WEIGHTS
                }
                work.log(lr=rate, scale=clip.logit_scale.exp().item(), **values, mIoU=miou)
    return 0
