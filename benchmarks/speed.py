"""How fast and how lean is it? Upsamplers against their plain published computation.

    python benchmarks/speed.py --output outputs/speed
    python benchmarks/speed.py --only "speed/*/224"       # some measurements, by name
    python benchmarks/speed.py --list                     # their names

The plain computations are in `benchmarks/plain`. All run in one process on the same random weights
and inputs: LoftUp (named by its channels), AnyUp and NAF upsample features, joint bilateral and
guided filter the scores of 21 words, as the pipeline has them do. Memory is measured in a fresh
process each: peak minus what the loaded model held; `scores` are those of 21 words by the weights
of the features. A line of JSON per measurement; --output also gets results.json and report.md.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # run as a file: Python looks for packages beside it
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measuring import (
    MACHINE,
    MACHINE_COLUMNS,
    TIMES,
    Measurements,
    Row,
    above_loaded,
    compare,
    in_bfloat16,
    machine,
    run_program,
)

if TYPE_CHECKING:
    from torch import Tensor

PATCH, WORDS, CHANNELS = 16, 21, 512
LOFTUPS = ("512", "128")  # channels: CLIP ViT-B/16's, and the shipped tiny one's
OTHERS = ("jbu", "guided", "anyup", "naf")
SIZES = (224, 448)
_COLUMNS = {
    "machine": MACHINE_COLUMNS,
    "speed": ("name", "way", *TIMES, "max_error", "min_cosine"),
    "parts": ("name", "way", "part", "gflop", "cpu_s", "share_of_machine"),
    "memory": ("name", "way", "loaded_mib", "above_loaded_mib"),
}


def ways(name: str, size: int, grid: int) -> dict[str, Callable[[], Tensor]]:
    """What computes the same in several ways, and `scores`, on one square image.

    Args:
        name: of `OTHERS`, or a number: LoftUp of so many channels.
        size: pixels a side.
        grid: patches a side.
    """
    import torch
    from torch.nn import functional as F

    torch.manual_seed(0)
    image = F.interpolate(torch.rand(1, 3, 32, 32), (size, size), mode="bilinear")
    if name in ("jbu", "guided"):
        from benchmarks.plain.filters import plain_guided_filter, plain_joint_bilateral
        from models.upsamplers import load_upsampler

        plain = {"jbu": plain_joint_bilateral, "guided": plain_guided_filter}[name]
        upsample, scores = load_upsampler(name).upsample_values, torch.randn(1, WORDS, grid, grid)
        return {
            "plain": lambda: plain(scores, image),
            "float32": lambda: upsample(scores, scores, image, (size, size)),
        }
    if name == "naf":
        from benchmarks.plain.naf import plain_naf
        from models.naf.network import NAF
        from models.upsamplers.trained import NAFUpsampler

        naf = NAF().eval().requires_grad_(False)
        scores = NAFUpsampler(naf).upsample_scores
        features, text = torch.randn(1, CHANNELS, grid, grid), torch.randn(WORDS, CHANNELS)
        found = {
            "plain": lambda: plain_naf(naf, image, features),
            "float32": lambda: naf(image, features),
            "scores": lambda: scores(features, image, text, (size, size)),
        }
    elif name == "anyup":
        from benchmarks.plain.anyup import plain_anyup
        from models.anyup.network import AnyUp
        from models.upsamplers.trained import AnyUpUpsampler

        anyup = AnyUp().eval().requires_grad_(False)
        values = AnyUpUpsampler(anyup).upsample_values
        features, scores = torch.randn(1, CHANNELS, grid, grid), torch.randn(1, WORDS, grid, grid)
        found = {
            "plain": lambda: plain_anyup(anyup, image, features),
            "float32": lambda: anyup(image, features),
            "scores": lambda: values(scores, features, image, (size, size)),
        }
    else:
        from benchmarks.plain.loftup import plain_loftup
        from models.loftup.network import LoftUp

        loftup = LoftUp(int(name)).eval().requires_grad_(False)
        features = torch.randn(1, int(name), grid, grid)
        text = F.normalize(torch.randn(WORDS, int(name)), dim=1)
        found = {
            "plain": lambda: plain_loftup(loftup, features, image),
            "float32": lambda: loftup(features, image),
            "scores": lambda: loftup.upsample_scores(features, image, text),
        }
    rough = {"bfloat16": "float32", "scores-bfloat16": "scores"}
    return found | {way: in_bfloat16(found[exact]) for way, exact in rough.items()}


def speed(name: str, size: int) -> list[Row]:
    """Plain, float32 and bfloat16 on the same inputs; of LoftUp, where the time goes as well."""
    works = {k: w for k, w in ways(name, size, size // PATCH).items() if "scores" not in k}
    rows = compare(f"{name}/{size}", works)
    if name in OTHERS:
        return rows
    for precision in ("float32", "bfloat16"):
        rate = machine(precision)[0]["gflops_per_cpu_second"]
        for part, (gflop, cpu) in _parts(int(name), size, works[precision]).items():
            row = {"section": "parts", "name": f"{name}/{size}", "way": precision, "part": part}
            share = gflop / cpu / rate
            rows.append(row | {"gflop": gflop, "cpu_s": cpu, "share_of_machine": share})
    return rows


def _parts(dim: int, size: int, work: Callable) -> dict[str, tuple[float, float]]:
    """GFLOP by the plain definition, and processor seconds, of the two halves of LoftUp's call.

    A half that needs fewer operations than its definition can exceed the machine's rate.
    """
    from unittest.mock import patch

    import torch

    from models.loftup.inference import FoldedLoftUp

    pixels, tokens, width = size**2, (size // PATCH) ** 2, dim + 20
    convolutions = 2 * 9 * width * (203 + width)
    layer = 2 * (2 * width * width + 2 * tokens * width + 2 * width * dim)
    flops = {"_queries": convolutions, "_values": 2 * layer + 2 * width * dim}
    names = {"_queries": "guide, convolutions", "_values": "attention, feed-forward, projection"}
    seconds = dict.fromkeys(flops, 0.0)

    def timed(name: str) -> Callable:
        method = getattr(FoldedLoftUp, name)

        def call(*args: object) -> object:
            start = time.process_time()
            result = method(*args)
            seconds[name] += time.process_time() - start
            return result

        return call

    with torch.no_grad(), patch.multiple(FoldedLoftUp, **{name: timed(name) for name in flops}):
        work()
    return {names[n]: (flops[n] * pixels / 1e9, seconds[n]) for n in flops}


def memory(name: str, way: str, size: int, grid: int | None = None) -> list[Row]:
    """Of one way, above the loaded model: run it in a fresh process."""
    import torch

    grid = grid or size // PATCH
    name_of_row = f"{name}, {grid}×{grid} -> {size}×{size}"
    with torch.no_grad():
        ways(name, 32, 2)[way]()  # the libraries come into memory
        row = above_loaded(ways(name, size, grid)[way])
    return [{"section": "memory", "name": name_of_row, "way": way, **row}]


# The plain AnyUp holds 0.15 GiB of attention at 224×224, 2.5 GiB at 448×448.
_MEMORY = [
    *(("512", way, size) for way in ("plain", "float32", "scores") for size in SIZES),
    *((name, way, size, 32) for name in LOFTUPS for size in (1024, 2048)
      for way in ("scores", "scores-bfloat16")),
    *((name, "plain", 224) for name in OTHERS),
    *((name, "float32" if name in ("jbu", "guided") else "scores", size) for name in OTHERS
      for size in (224, 1024, 2048)),
]  # fmt: skip
# By name: a function and its arguments. Memory last: it takes long, and does not mind what else the
# machine does.
MEASUREMENTS: Measurements = {
    **MACHINE,
    **{f"speed/{name}/{size}": (speed, (name, size)) for name in LOFTUPS for size in SIZES},
    **{f"speed/{name}/224": (speed, (name, 224)) for name in OTHERS},
    **{"/".join(map(str, ("memory", *case[:3]))): (memory, case) for case in _MEMORY},
}


def main(argv: list[str] | None = None) -> int:
    return run_program("Speed and memory of the upsamplers", __doc__, MEASUREMENTS, _COLUMNS, argv)


if __name__ == "__main__":
    raise SystemExit(main())
