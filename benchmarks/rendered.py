"""How good the pipeline is on held-out rendered scenes, and what each choice in it brings.

    python benchmarks/rendered.py --workers 2           # 100 scenes
    python benchmarks/rendered.py --scenes 20 --more    # also the arms of the ablations

Scenes of 224 to 512 px with 2 to 6 things of PASCAL VOC's classes (and tree, building), from seeds
no training used. Every arm shares CLIP's features, the text vectors and SAM 2's image embedding of
a scene. Writes `results.json` and `report.md` to OUTPUT; the last line printed is the JSON.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import multiprocessing
import platform
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

# Run as a file, Python looks for packages beside it, not in the repository's root.
ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from models.sclip_segmentor import DenseResult  # noqa: E402
from models.vocabulary import Vocabulary  # noqa: E402
from pipeline.config import PipelineConfig  # noqa: E402
from pipeline.metrics import class_iou, confusion, edge_band, mean_iou  # noqa: E402
from pipeline.options import run_main  # noqa: E402
from pipeline.result import write_atomically  # noqa: E402
from pipeline.segmenter import Segmenter, versions  # noqa: E402
from pipeline.world import VOC_NOUNS, Scene, load_world, plural, render_scene  # noqa: E402

NOUNS = (*VOC_NOUNS, "tree", "building")
CONFIG = PipelineConfig(use_loftup=True)
SEED = 2026  # training and validation scenes have other first numbers

# Ways to word scores: attributes of the segmentor.
SCORES = {
    "no upsampling": {"use_loftup": False, "upsampling": "none"},
    "bilinear": {"use_loftup": False, "upsampling": "bilinear"},
    "LoftUp": {"use_loftup": True, "loftup_share": 1.0},
}
MORE_SCORES = {
    "LoftUp, channel_norm": {"use_loftup": True, "loftup_share": 1.0, "text_space": "channel_norm"},
    "LoftUp, whole image": {"use_loftup": True, "loftup_share": 1.0, "whole_image": True},
}
MEAN = "mean of bilinear and LoftUp"
# Mask arms on the mean's map: fields of PipelineConfig.
STRATEGIES = {
    "pole": {"strategy": "pole"},
    "centroid": {"strategy": "centroid"},
    "peak": {"strategy": "peak"},
    "multi (3 points)": {"strategy": "multi"},
}
PROMPTS = {
    "point alone": {"prompt_mask": False, "prompt_box": False},
    "+ 2 negative points": {"prompt_mask": False, "prompt_box": False, "negative_points": 2},
    "+ box": {"prompt_mask": False, "prompt_box": True},
    "+ mask": {"prompt_mask": True, "prompt_box": False},
    "+ box + mask": {"prompt_mask": True, "prompt_box": True},
}
# Words typed instead of the nouns' own names (bilinear map).
WORDS = ("synonym", "plural")
CHOICES = {
    "mask by predicted IoU alone": {"mask_choice": "iou"},
    "no fall-back to the region": {"min_score": 0.0, "min_agreement": 0.0},
    "fall-back below agreement 0.5": {"min_agreement": 0.5},
    "min confidence 0.3": {"min_confidence": 0.3},
    "min confidence 0.5": {"min_confidence": 0.5},
    "min confidence 0.9": {"min_confidence": 0.9},
}


def scene(index: int) -> Scene:
    """Held-out scene number `index`."""
    rng = np.random.default_rng([SEED, index])
    height, width = (int(n) for n in rng.integers(224, 513, 2))
    side = (24.0, 0.6 * min(height, width))
    return render_scene(load_world(), rng, size=(height, width), nouns=NOUNS, side=side)


def other_words(kind: str) -> tuple[str, ...]:
    """Another name of every noun: its first synonym (else itself), or its plural."""
    names = load_world().names
    if kind == "synonym":
        return tuple(names[noun][1] for noun in NOUNS)
    return tuple(
        "people" if noun == "person" else noun if noun == "sheep" else plural(noun)
        for noun in NOUNS
    )


class Tally:
    """Sums over the scenes of one arm."""

    def __init__(self) -> None:
        count = len(NOUNS) + 1
        self.whole = np.zeros((count, count), np.int64)
        self.edges = np.zeros((count, count), np.int64)
        self.seconds: list[float] = []
        self.prompts = self.points = self.hits = self.masks = self.fallbacks = 0

    def add(self, truth: np.ndarray, predicted: np.ndarray, seconds: float) -> None:
        band = edge_band(truth)
        self.whole += confusion(truth, predicted, len(self.whole))
        self.edges += confusion(truth[band], predicted[band], len(self.edges))
        self.seconds.append(seconds)

    def add_prompts(self, truth: np.ndarray, prompts: list[dict], sources: tuple[str, ...]) -> None:
        self.prompts += len(prompts)
        self.masks += len(sources)
        self.fallbacks += sources.count("region")
        for prompt in prompts:
            for x, y in prompt["points"]:
                self.points += 1
                self.hits += bool(truth[y, x] == prompt["class_idx"] + 1)

    def merge(self, other: Tally) -> None:
        """Add what another process counted."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def row(self) -> dict[str, object]:
        scenes = len(self.seconds)
        row: dict[str, object] = {
            "mIoU": round(mean_iou(self.whole), 2),
            "edge_mIoU": round(mean_iou(self.edges), 2),
            "seconds": round(float(np.median(self.seconds)), 3),
            "per_class": [None if np.isnan(v) else round(v, 2) for v in class_iou(self.whole)],
        }
        if self.masks:
            row |= {
                "prompts_per_image": round(self.prompts / scenes, 2),
                "points_on_class": round(100 * self.hits / max(self.points, 1), 2),
                "fallbacks": round(100 * self.fallbacks / self.masks, 2),
            }
        return row


def classes(dense: DenseResult) -> np.ndarray:
    """(H, W) labels of a dense map: 0 background, i + 1 noun i."""
    labels = dense.labels + 1
    return np.where(labels > len(NOUNS), 0, labels)


def evaluate(segmenter: Segmenter, scenes: Sequence[int], *, more: bool) -> dict[str, Tally]:
    """Tallies by arm name over the scenes of these numbers."""
    words = Vocabulary.parse(NOUNS, segmenter.segmentor.protocol.background)
    tallies: dict[str, Tally] = defaultdict(Tally)
    ways = SCORES | (MORE_SCORES if more else {})
    mask_arms = {f"strategy: {k}": v for k, v in STRATEGIES.items()}
    mask_arms |= {f"prompt: {k}": v for k, v in PROMPTS.items()}
    if more:
        mask_arms |= {f"choice: {k}": v for k, v in CHOICES.items()}
    for index in tqdm(scenes, unit="scene", disable=None):
        item = scene(index)
        truth = item.label_map({noun: i + 1 for i, noun in enumerate(NOUNS)})
        encoded = segmenter.segmentor.encode(item.image)
        scores, seconds = {}, {}
        for name, settings in ways.items():
            arm = copy.copy(segmenter.segmentor)
            vars(arm).update(settings)
            start = time.perf_counter()
            scores[name] = arm.scores(encoded, words)
            seconds[name] = time.perf_counter() - start + encoded.seconds
        scores[MEAN] = (scores["bilinear"] + scores["LoftUp"]) / 2
        seconds[MEAN] = seconds["bilinear"] + seconds["LoftUp"] - encoded.seconds
        maps = {}
        for name, words_scores in scores.items():
            maps[name] = segmenter.segmentor.classify(words_scores, encoded, words)
            tallies[name].add(truth, classes(maps[name]), seconds[name])
        if more:
            arm = copy.copy(segmenter.segmentor)
            arm.use_pamr = True
            start = time.perf_counter()
            refined = arm.classify(scores["bilinear"], encoded, words)
            spent = time.perf_counter() - start + seconds["bilinear"]
            tallies["bilinear + PAMR"].add(truth, classes(refined), spent)
        for kind in WORDS:
            arm = copy.copy(segmenter.segmentor)
            vars(arm).update(SCORES["bilinear"])
            start = time.perf_counter()
            others = Vocabulary.parse(other_words(kind), arm.protocol.background)
            found = classes(arm.dense(encoded, others))
            spent = time.perf_counter() - start + encoded.seconds
            tallies[f"bilinear, {kind}s typed"].add(truth, found, spent)
        finals = {f"{base} + SAM 2": (base, {}) for base in ("bilinear", "LoftUp", MEAN)}
        finals |= {name: (MEAN, settings) for name, settings in mask_arms.items()}
        for name, (base, settings) in finals.items():
            arm = copy.copy(segmenter)
            arm.config = dataclasses.replace(segmenter.config, **settings)
            start = time.perf_counter()
            result = arm.masks(encoded, maps[base], words)
            tallies[name].add(truth, result.label_map, time.perf_counter() - start)
            prompts, _ = arm.prompts(maps[base], words)
            tallies[name].add_prompts(truth, prompts, result.sources)
    return dict(tallies)


def evaluate_part(
    preset: str, device: str | None, scenes: Sequence[int], more: bool, threads: int | None
) -> dict[str, Tally]:
    """`evaluate` in a process of its own."""
    if threads is not None:
        torch.set_num_threads(threads)
    segmenter = Segmenter.from_preset(preset, device=device, config=CONFIG)
    return evaluate(segmenter, scenes, more=more)


def report(arms: dict[str, dict[str, object]], settings: dict[str, object]) -> str:
    """The rows as Markdown."""
    lines = [
        f"{settings['scenes']} held-out rendered scenes, preset {settings['preset']}, "
        f"{len(NOUNS)} classes and background; mIoU in percent, edge: within 3 px of an outline.",
        "",
        "| arm | mIoU | edge mIoU | prompts / image | points on the class % | fall-backs % | s |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in arms.items():
        cells = (row.get(k, "") for k in ("prompts_per_image", "points_on_class", "fallbacks"))
        lines.append(
            f"| {name} | {row['mIoU']:.1f} | {row['edge_mIoU']:.1f} | "
            + " | ".join(str(cell) for cell in cells)
            + f" | {row['seconds']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=int, default=100, help="how many (default: %(default)s)")
    parser.add_argument("--preset", default="tiny", help="trained models (default: %(default)s)")
    parser.add_argument("--device", help="cuda, mps or cpu (default: the best available)")
    parser.add_argument(
        "--workers", type=int, default=1, help="processes, one thread each (default: %(default)s)"
    )
    parser.add_argument("--more", action="store_true", help="also the arms of the ablations")
    parser.add_argument("--output", type=Path, default=ROOT / "outputs" / "rendered")
    parser.add_argument("--verbose", action="store_true", help="log more; tracebacks of errors")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    return run_main(_run, parse(argv))


def _run(args: argparse.Namespace) -> int:
    if args.scenes < 1:
        raise ValueError(f"--scenes must be at least 1, got {args.scenes}")
    if args.workers < 1:
        raise ValueError(f"--workers must be at least 1, got {args.workers}")
    parts = [range(k, args.scenes, args.workers) for k in range(args.workers)]
    if args.workers == 1:
        found = [evaluate_part(args.preset, args.device, parts[0], args.more, None)]
    else:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(args.workers, mp_context=spawn) as pool:
            jobs = [
                pool.submit(evaluate_part, args.preset, args.device, part, args.more, 1)
                for part in parts
            ]
            found = [job.result() for job in jobs]
    tallies = found[0]
    for other in found[1:]:
        for name, tally in other.items():
            tallies[name].merge(tally)
    arms = {name: tally.row() for name, tally in tallies.items()}
    settings = CONFIG.to_dict() | {"preset": args.preset, "scenes": args.scenes, "seed": SEED}
    text = report(arms, settings)
    machine = {"machine": platform.machine(), "workers": args.workers}
    data = {"arms": arms, "settings": settings, "versions": versions() | machine}
    line = json.dumps(data)
    write_atomically(args.output / "results.json", (json.dumps(data, indent=1) + "\n").encode())
    write_atomically(args.output / "report.md", text.encode())
    print(text)
    print(line)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
