"""How fast and how lean is it? Upsamplers against their plain published computation.

    python benchmarks/speed.py --output outputs/speed
    python benchmarks/speed.py --only "speed/*/224"       # some measurements, by name
    python benchmarks/speed.py --list                     # their names

LoftUp's plain computation is `benchmarks/plain/loftup.py`; for the others see
`benchmarks/upsamplers.py`. Both run in one process on the same random weights and inputs. Memory
is measured in a fresh process each: peak minus what the loaded model held. A line of JSON per
measurement; --output also gets results.json and report.md.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Run as a file, Python looks for packages beside it, not in the repository's root.
ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks import upsamplers
from benchmarks.measuring import (
    Row,
    in_bfloat16,
    machine,
    measure,
    peak_mib,
    resident_mib,
    run_program,
)

PATCH, WORDS = 16, 21
DIMS = (512, 128)  # CLIP ViT-B/16's LoftUp, and the shipped tiny one's size
SIZES = (224, 448)
_COLUMNS = {
    "machine": ("precision", "gflops_per_second", "gflops_per_cpu_second"),
    "speed": ("name", "way", "first_s", "median_s", "spread_s", "cpu_s", "times_faster",
              "times_less_cpu", "max_error", "min_cosine"),
    "parts": ("name", "way", "part", "gflop", "cpu_s", "share_of_machine"),
    "memory": ("name", "loaded_mib", "above_loaded_mib"),
}  # fmt: skip


def speed(dim: int, size: int) -> list[Row]:
    """Plain, float32 and bfloat16 on the same weights and inputs, and where the time goes."""
    import torch
    from torch.nn import functional as F

    from benchmarks.plain.loftup import plain_loftup

    loftup, features, image = _inputs(dim, size, size // PATCH)
    rows, outputs = [], {}
    with torch.no_grad():
        ways = {
            "plain": lambda: plain_loftup(loftup, features, image),
            "float32": lambda: loftup(features, image),
            "bfloat16": in_bfloat16(lambda: loftup(features, image)),
        }
        for way, work in ways.items():
            rows.append({"section": "speed", "name": f"{dim}/{size}", "way": way, **measure(work)})
            outputs[way] = work().float()
        for row in rows:
            output = outputs[row["way"]]
            row["times_faster"] = rows[0]["median_s"] / row["median_s"]
            row["times_less_cpu"] = rows[0]["cpu_s"] / row["cpu_s"]
            row["max_error"] = float((output - outputs["plain"]).abs().max())
            cosines = F.cosine_similarity(output.double(), outputs["plain"].double(), dim=1)
            row["min_cosine"] = float(cosines.min())
        outputs.clear()
        rates = {p: machine(p)[0]["gflops_per_cpu_second"] for p in ("float32", "bfloat16")}
        for way, rate in rates.items():
            for part, (gflop, cpu) in _parts(loftup, features, image, ways[way]).items():
                row = {"section": "parts", "name": f"{dim}/{size}", "way": way, "part": part}
                rows.append(row | {"gflop": gflop, "cpu_s": cpu,
                                   "share_of_machine": gflop / cpu / rate})  # fmt: skip
    return rows


def _parts(loftup: Any, features: Any, image: Any, work: Callable) -> Row:
    """GFLOP by the plain definition, and processor seconds, of the two halves of one call.

    A half that needs fewer operations than its definition can exceed the machine's rate.
    """
    from unittest.mock import patch

    from models.loftup.inference import FoldedLoftUp

    _, dim, *grid = features.shape
    pixels, tokens, width = image.shape[2] * image.shape[3], grid[0] * grid[1], dim + 20
    convolutions = 2 * 9 * width * (203 + width)
    layer = 2 * (2 * width * width + 2 * tokens * width + 2 * width * dim)
    flops = {"_queries": convolutions, "_values": 2 * layer + 2 * width * dim}
    names = {"_queries": "guide, convolutions", "_values": "attention, feed-forward, projection"}
    seconds = dict.fromkeys(flops, 0.0)

    def timed(name: str) -> Callable:
        method = getattr(FoldedLoftUp, name)

        def call(*args: Any) -> Any:
            start = time.process_time()
            result = method(*args)
            seconds[name] += time.process_time() - start
            return result

        return call

    with patch.multiple(FoldedLoftUp, **{name: timed(name) for name in flops}):
        work()
    return {names[n]: (flops[n] * pixels / 1e9, seconds[n]) for n in flops}


def memory(what: str, dim: int, size: int, grid: int, precision: str = "float32") -> list[Row]:
    """Peak above the loaded model, MiB, of this process: run it in a fresh one.

    `what`: "plain" or "features" (C at every pixel of the square image), "plain scores" or
    "scores" of 21 words. `grid`: side of the feature map.
    """
    import torch
    from torch.nn import functional as F

    from benchmarks.plain.loftup import plain_loftup, plain_scores

    ways = {
        "plain": lambda model, text, *inputs: plain_loftup(model, *inputs),
        "plain scores": lambda model, text, *inputs: plain_scores(model, *inputs, text),
        "features": lambda model, text, *inputs: model(*inputs),
        "scores": lambda model, text, *inputs: model.upsample_scores(*inputs, text),
    }
    work = ways[what] if precision == "float32" else in_bfloat16(ways[what])
    with torch.no_grad():
        small, *inputs = _inputs(12, 32, 2)
        work(small, torch.ones(WORDS, 12), *inputs)  # the libraries come into memory
        model, *inputs = _inputs(dim, size, grid)
        text = F.normalize(torch.randn(WORDS, dim), dim=1)
        loaded = resident_mib()
        work(model, text, *inputs)
    name = f"{what}, {dim} channels, {grid}×{grid} -> {size}×{size}, {precision}"
    return [{"section": "memory", "name": name, "loaded_mib": loaded,
             "above_loaded_mib": peak_mib() - loaded}]  # fmt: skip


def _inputs(dim: int, size: int, grid: int) -> tuple[Any, Any, Any]:
    """A LoftUp with random weights, features of a square grid and a smooth square image."""
    import torch
    from torch.nn import functional as F

    from models.loftup.network import LoftUp

    torch.manual_seed(0)
    loftup = LoftUp(dim).eval().requires_grad_(False)
    image = F.interpolate(torch.rand(1, 3, 32, 32), (size, size), mode="bilinear")
    return loftup, torch.randn(1, dim, grid, grid), image


# By name: a function and its arguments.
_MEASUREMENTS: dict[str, tuple[Callable[..., list[Row]], tuple]] = {
    **{f"machine/{p}": (machine, (p,)) for p in ("float32", "bfloat16")},
    **{f"speed/{dim}/{size}": (speed, (dim, size)) for dim in DIMS for size in SIZES},
    **{
        f"memory/{what.replace(' ', '-')}/512/{size}": (memory, (what, 512, size, size // PATCH))
        for what in ("plain", "features", "scores")
        for size in SIZES
    },
    **{
        f"memory/scores/{dim}/{size}/{precision}": (memory, ("scores", dim, size, 32, precision))
        for dim in DIMS
        for size in (1024, 2048)
        for precision in ("float32", "bfloat16")
    },
    **upsamplers.MEASUREMENTS,
}
# Memory last: it takes long, and does not mind what else the machine does.
MEASUREMENTS = dict(sorted(_MEASUREMENTS.items(), key=lambda item: item[0].startswith("memory")))


def main(argv: list[str] | None = None) -> int:
    return run_program("Speed and memory of the upsamplers", __doc__, MEASUREMENTS, _COLUMNS, argv)


if __name__ == "__main__":
    raise SystemExit(main())
