"""What does a grid cost, and what can an upsampler give back? The true labels, upsampled again.

    python benchmarks/ceiling.py                                  # drawings: rendered scenes
    python benchmarks/ceiling.py --images CamVid/test --labels CamVid/testannot
    python benchmarks/ceiling.py --images BSDS/images --labels BSDS/segments --segments

The true label map is pooled to a grid: every cell has the shares of the classes among its labelled
pixels, as if a network had recognised all of them and only the place were lost. Each method
upsamples these shares with the image as guide, the largest wins, and the labels are scored as any
prediction. A grid has one cell per STRIDE pixels, rounded. `NAME+pamr` refines with PAMR.

Written are results.json and report.md; the last line printed is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
if not __package__:  # run as a file: Python looks for packages beside it
    sys.path.insert(0, str(ROOT))

from models.upsamplers.registry import UPSAMPLERS
from pipeline.app.options import Parser, run_main

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from models.upsamplers.base import LinearUpsampler
    from pipeline.evaluation.arm_scores import ArmScores

STRIDES = (8, 14, 16, 32)
_UNTRAINED = tuple(name for name, row in UPSAMPLERS.items() if not row.network)
DEFAULT = (*_UNTRAINED, "bilinear+pamr")
BASELINE = "bilinear"
SHOWN = ("mIoU", "edge_mIoU", "boundary_IoU")


class Picture(NamedTuple):
    """One image (H, W, 3) uint8 RGB and its labels (H, W), 255 void."""

    name: str
    image: np.ndarray
    labels: np.ndarray


class Method(NamedTuple):
    """An upsampler, and whether PAMR follows."""

    upsampler: LinearUpsampler
    pamr: bool

    def upsample(self, shares: Tensor, guide: Tensor) -> Tensor:
        """Shares (1, C, h, w) at the pixels of the guide (1, 3, H, W), RGB 0…1."""
        from models.dense import PAMR_DILATIONS, PAMR_STEPS
        from models.pamr import pamr

        size = (guide.shape[2], guide.shape[3])
        found = self.upsampler.upsample_values(shares, shares, guide, size)
        return pamr(guide, found, PAMR_STEPS, PAMR_DILATIONS) if self.pamr else found


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--images", type=Path, help="folder of photographs (default: rendered scenes)")
    add("--labels", type=Path, help="folder of their label PNGs: same places, 255 is void")
    add("--segments", action="store_true",
        help="labels number the segments of one image: scored image by image")  # fmt: skip
    add("--stride", type=int, nargs="+", metavar="PIXELS", default=list(STRIDES),
        help=f"side of a cell (default: {' '.join(map(str, STRIDES))})")  # fmt: skip
    add("--upsamplers", nargs="+", metavar="NAME", default=list(DEFAULT),
        help=f"of {', '.join(_UNTRAINED)} or FILE.py:NAME of one's own, each with +pamr or without "
        f"(default: {' '.join(DEFAULT)})")  # fmt: skip
    add("--limit", type=int, help="only the first images")
    add("--resamples", type=int, default=2000, help="of the bootstrap (default: %(default)s)")
    add("--output", type=Path, default=Path("outputs/ceiling"), help="(default: %(default)s)")
    add("--threads", type=int, default=1, help="(default: %(default)s)")
    add("--verbose", action="store_true", help="log more; tracebacks of errors")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    return run_main(_run, parse(argv))


def _run(args: argparse.Namespace) -> int:
    import torch

    for option in ("threads", "resamples"):
        if getattr(args, option) < 1:
            raise ValueError(f"--{option} must be at least 1, got {getattr(args, option)}")
    if min(args.stride) < 1:
        raise ValueError(f"--stride must be at least 1 pixel, got {min(args.stride)}")
    if args.segments and args.images is None:
        raise ValueError("--segments is about label maps of one's own: add --images and --labels")
    torch.set_num_threads(args.threads)
    methods = {name: load_method(name) for name in args.upsamplers}
    pictures, count = open_pictures(args.images, args.labels, args.limit)
    scores = measure(pictures, count, args.stride, methods)
    strides = {
        str(stride): summary(found, segments=args.segments, resamples=args.resamples)
        for stride, found in scores.items()
    }
    data = {
        "upsamplers": strides[str(args.stride[0])],
        "strides": strides,
        "settings": {
            "images": "rendered scenes" if args.images is None else args.images.name,
            "stride": args.stride,
            "segments": args.segments,
            "number": len(next(iter(next(iter(scores.values())).values())).rows),
            "classes": None if args.segments else count,
        },
    }
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "results.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    text = report(data)
    (args.output / "report.md").write_text(text, encoding="utf-8")
    print(text)
    print(json.dumps(data["strides"]))
    return 0


def load_method(name: str) -> Method:
    """From a name of `--upsamplers`.

    Raises:
        ValueError: unknown, or it cannot upsample labels.
    """
    from models.upsamplers.base import LinearUpsampler
    from models.upsamplers.registry import get_row, load_own, load_upsampler

    base = name.removesuffix("+pamr")
    if ".py:" in base:
        found: Any = load_own(base)[1].own  # type: ignore[attr-defined]
    elif get_row(base).network:
        raise ValueError(
            f"upsampler {base!r} was trained on features and cannot upsample labels; valid: "
            f"{', '.join(_UNTRAINED)}"
        )
    else:
        found = load_upsampler(base)
    if not isinstance(found, LinearUpsampler):
        raise ValueError(f"upsampler {base!r} must be a subclass of LinearUpsampler")
    return Method(found, pamr=base != name)


def open_pictures(
    images: Path | None, labels: Path | None, limit: int | None
) -> tuple[Sequence[Callable[[], Picture]], int]:
    """What reads the pictures one by one, and the number C of labels in all of them.

    Raises:
        ValueError: one folder without the other, a limit that is not positive.
        FileNotFoundError: no such folder, or no picture with a label map.
    """
    from models.images import load_image
    from pipeline.datasets.folder import images_with_labels
    from pipeline.files.label_png import read_index_png

    if limit is not None and limit < 1:
        raise ValueError(f"--limit must be at least 1 image, got {limit}")
    if images is None and labels is None:
        return _rendered(limit)
    if images is None or labels is None:
        raise ValueError("--images and --labels belong together: give both or neither")
    paths = images_with_labels(images, labels)[:limit]
    if not paths:
        raise FileNotFoundError(f"no picture in '{images}' has a label PNG in '{labels}'")

    def read(path: Path) -> Picture:
        place = path.relative_to(images).with_suffix(".png")
        picture = Picture(str(place), load_image(path), read_index_png(labels / place))
        if picture.labels.shape != picture.image.shape[:2]:
            raise ValueError(
                f"label map '{labels / place}' has size {picture.labels.shape}, its picture "
                f"{picture.image.shape[:2]}"
            )
        return picture

    highest = 0
    for path in paths:
        values = read(path).labels
        highest = max(highest, int(values[values != 255].max(initial=0)))
    return [lambda path=path: read(path) for path in paths], highest + 1


def _rendered(limit: int | None) -> tuple[Sequence[Callable[[], Picture]], int]:
    from benchmarks.segmentation import SCENES, rendered_root
    from pipeline.datasets import open_dataset

    root = rendered_root("voc21", SCENES)
    dataset = open_dataset("voc21", root, "val", limit)

    def read(name: str) -> Picture:
        return Picture(name, dataset.load_image(name), dataset.load_truth(name).labels)

    return [lambda name=name: read(name) for name in dataset.ids], len(dataset.labels)


def pool_labels(labels: Tensor, count: int, grid: tuple[int, int]) -> Tensor:
    """Shares of the labels in every cell.

    Args:
        labels: (H, W) int64, 0…count-1, or higher for void.
        count: C.
        grid: (h, w).

    Returns:
        (1, C, h, w), summing to 1, or 0 in a cell that is void throughout.
    """
    from torch.nn import functional as F

    known = F.one_hot(labels.clamp_max(count), count + 1)[..., :count].movedim(2, 0)[None]
    shares = F.adaptive_avg_pool2d(known.float(), grid)
    return shares / shares.sum(1, keepdim=True).clamp_min(1e-9)


def measure(
    pictures: Sequence[Callable[[], Picture]],
    count: int,
    strides: Sequence[int],
    methods: dict[str, Method],
) -> dict[int, dict[str, ArmScores]]:
    """Scores by stride and method."""
    import torch
    from tqdm import tqdm

    from pipeline.datasets.base import GroundTruth
    from pipeline.evaluation.arm_scores import ArmScores
    from pipeline.evaluation.scores import score_image

    names = [str(label) for label in range(count)]
    scores = {stride: {name: ArmScores(names) for name in methods} for stride in strides}
    for read in tqdm(pictures, unit="image", disable=None):
        picture = read()
        guide = torch.from_numpy(picture.image).movedim(2, 0)[None] / 255
        truth = GroundTruth(picture.labels, None)
        for stride, name, predicted, seconds in _predict(picture, guide, count, strides, methods):
            found = score_image(picture.labels, predicted, None, count)
            record = {"seconds": {"upsample": seconds}}
            scores[stride][name].add(picture.name, found, record, truth)
    return scores


def _predict(
    picture: Picture,
    guide: Tensor,
    count: int,
    strides: Sequence[int],
    methods: dict[str, Method],
) -> Iterator[tuple[int, str, np.ndarray, float]]:
    """Stride, method, labels (H, W) and seconds."""
    import numpy as np
    import torch

    labels = torch.from_numpy(picture.labels.astype(np.int64))
    for stride in strides:
        grid = tuple(max(1, round(side / stride)) for side in labels.shape)
        shares = pool_labels(labels, count, grid)
        for name, method in methods.items():
            start = time.perf_counter()
            with torch.inference_mode():
                found = method.upsample(shares, guide)[0]
            seconds = time.perf_counter() - start
            yield stride, name, found.argmax(0).numpy().astype(picture.labels.dtype), seconds


def summary(scores: dict[str, ArmScores], *, segments: bool, resamples: int) -> dict[str, Any]:
    """What every method gets, and by how much it differs from bilinear."""
    import numpy as np

    from pipeline.evaluation.arm_scores import rounded
    from pipeline.evaluation.bootstrap import paired_bootstrap

    result: dict[str, Any] = {name: {} for name in scores}
    for metric in SHOWN:
        if segments:  # numbers mean something else in every image: no sums over images
            for name, arm in scores.items():
                values = [row[metric] for row in arm.rows if row[metric] is not None]
                result[name][metric] = rounded(float(np.mean(values)))
            continue
        counts = {name: arm.stacked(metric) for name, arm in scores.items()}
        bootstrap = paired_bootstrap(counts, resamples=resamples)
        for name, interval in bootstrap.arms.items():
            result[name][metric] = rounded(interval.value)
            result[name][f"{metric}_interval"] = [rounded(interval.low), rounded(interval.high)]
    for name, arm in scores.items():
        result[name]["seconds"] = arm.timings()["upsample"]["median"]
    return result


def report(data: dict[str, Any]) -> str:
    """Tables for people, and where a method is worse than bilinear."""
    settings = data["settings"]
    lines = ["# What a grid costs, and what upsamplers give back", ""]
    lines += [f"True labels of {settings['number']} images ({settings['images']}), pooled and "
              "upsampled again.", ""]  # fmt: skip
    lost = []
    for stride, found in data["strides"].items():
        lines += [f"## Stride {stride}", "", f"| method | {' | '.join(SHOWN)} | ms |"]
        lines += ["| --- |" + " --- |" * (len(SHOWN) + 1)]
        for name, row in found.items():
            values = " | ".join(f"{row[metric]:.2f}" for metric in SHOWN)
            lines.append(f"| {name} | {values} | {1000 * row['seconds']:.0f} |")
            for metric in SHOWN if BASELINE in found else ():
                if (difference := row[metric] - found[BASELINE][metric]) < 0:
                    lost.append(f"- stride {stride}, {name}: {metric} {difference:+.2f}")
        lines.append("")
    lines += [f"## Below {BASELINE}", "", *(lost or ["None."])]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
