"""How fast and how lean is it? Upsamplers against their plain published computation.

    python benchmarks/speed.py --output outputs/speed
    python benchmarks/speed.py --only "speed/*/224"       # some measurements, by name
    python benchmarks/speed.py --list                     # their names

LoftUp's plain computation is `benchmarks/plain_loftup.py`; for the others see
`benchmarks/upsamplers.py`. Both run in one process on the same random
weights and inputs. Memory is measured in a fresh process each: peak minus what the loaded model
held. A line of JSON per measurement; --output also gets results.json and report.md.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import multiprocessing
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

# Run as a file, Python looks for packages beside it, not in the repository's root.
ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks import upsamplers  # noqa: E402

Row = dict[str, Any]

PATCH, WORDS = 16, 21
DIMS = (512, 128)  # CLIP ViT-B/16's LoftUp, and the shipped tiny one's size
SIZES = (224, 448)
REPEATS = 3
_COLUMNS = {
    "machine": ("precision", "gflops_per_second", "gflops_per_cpu_second"),
    "speed": ("name", "way", "first_s", "median_s", "spread_s", "cpu_s", "times_faster",
              "times_less_cpu", "max_error", "min_cosine"),
    "parts": ("name", "way", "part", "gflop", "cpu_s", "share_of_machine"),
    "memory": ("name", "loaded_mib", "above_loaded_mib"),
}  # fmt: skip


def measure(work: Callable[[], object], repeats: int = REPEATS) -> Row:
    """Seconds of the first call, and median and quartile distance of `repeats` later ones.

    `cpu_s` is the median of processor seconds of all threads: it hardly depends on what else the
    machine does.
    """
    walls, cpus = [], []
    for _ in range(repeats + 1):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    quartiles = statistics.quantiles(walls[1:], n=4) if repeats > 1 else [walls[1]] * 3
    return {
        "first_s": walls[0],
        "median_s": statistics.median(walls[1:]),
        "spread_s": quartiles[2] - quartiles[0],
        "cpu_s": statistics.median(cpus[1:]),
    }


def machine(precision: str) -> list[Row]:
    """The machine's own rate: a product of two square matrices."""
    import torch

    side = 2048
    x = torch.randn(side, side).to(getattr(torch, precision))
    gflop, row = 2 * side**3 / 1e9, measure(lambda: x @ x)
    return [{"section": "machine", "precision": precision,
             "gflops_per_second": gflop / row["median_s"],
             "gflops_per_cpu_second": gflop / row["cpu_s"]}]  # fmt: skip


def speed(dim: int, size: int) -> list[Row]:
    """Plain, float32 and bfloat16 on the same weights and inputs, and where the time goes."""
    import torch
    from torch.nn import functional as F

    from benchmarks.plain_loftup import plain_loftup

    loftup, features, image = _inputs(dim, size, size // PATCH)
    rows, outputs = [], {}
    with torch.no_grad():
        ways = {
            "plain": lambda: plain_loftup(loftup, features, image),
            "float32": lambda: loftup(features, image),
            "bfloat16": _in_bfloat16(lambda: loftup(features, image)),
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

    from models.loftup_inference import FoldedLoftUp

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

    from benchmarks.plain_loftup import plain_loftup, plain_scores

    ways = {
        "plain": lambda model, text, *inputs: plain_loftup(model, *inputs),
        "plain scores": lambda model, text, *inputs: plain_scores(model, *inputs, text),
        "features": lambda model, text, *inputs: model(*inputs),
        "scores": lambda model, text, *inputs: model.upsample_scores(*inputs, text),
    }
    work = ways[what] if precision == "float32" else _in_bfloat16(ways[what])
    with torch.no_grad():
        small, *inputs = _inputs(12, 32, 2)
        work(small, torch.ones(WORDS, 12), *inputs)  # the libraries come into memory
        model, *inputs = _inputs(dim, size, grid)
        text = F.normalize(torch.randn(WORDS, dim), dim=1)
        loaded = _resident_mib()
        start = time.perf_counter()
        work(model, text, *inputs)
    name = f"{what}, {dim} channels, {grid}×{grid} -> {size}×{size}, {precision}"
    return [{"section": "memory", "name": name, "loaded_mib": loaded,
             "above_loaded_mib": _peak_mib() - loaded,
             "seconds": time.perf_counter() - start}]  # fmt: skip


def _inputs(dim: int, size: int, grid: int) -> tuple[Any, Any, Any]:
    """A LoftUp with random weights, features of a square grid and a smooth square image."""
    import torch
    from torch.nn import functional as F

    from models.loftup import LoftUp

    torch.manual_seed(0)
    loftup = LoftUp(dim).eval().requires_grad_(False)
    image = F.interpolate(torch.rand(1, 3, 32, 32), (size, size), mode="bilinear")
    return loftup, torch.randn(1, dim, grid, grid), image


def _in_bfloat16(work: Callable) -> Callable:
    import torch

    return torch.autocast("cpu", torch.bfloat16)(work)


def _peak_mib() -> float:
    status = Path("/proc/self/status")
    if status.exists():  # unlike ru_maxrss it does not begin with the parent's memory
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # macOS counts bytes, else KiB


def _resident_mib() -> float:
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return _peak_mib()
    return int(statm.read_text().split()[1]) * resource.getpagesize() / 2**20


# By name: a function and its arguments. The whole pipeline belongs here too.
MEASUREMENTS: dict[str, tuple[Callable[..., list[Row]], tuple]] = {
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


def run_fresh(work: Callable[..., list[Row]], *args: Any, threads: int | None = None) -> list[Row]:
    """What `work` returns in a process of its own."""
    context = multiprocessing.get_context("spawn")  # a fork would start with this process's peak
    with ProcessPoolExecutor(1, context, initializer=_set_threads, initargs=(threads,)) as pool:
        return pool.submit(work, *args).result()


def _set_threads(threads: int | None) -> None:
    import torch

    if threads:
        torch.set_num_threads(threads)


def environment(threads: int | None) -> Row:
    """Hardware, versions and commit."""
    import importlib.metadata

    git = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    return {
        "processor": next((x.split(":")[1].strip() for x in lines if x.startswith("model name")),
                          platform.machine()),
        "instructions": [f for f in flags if f in ("avx2", "avx512f", "avx512_bf16", "amx_bf16")],
        "cores": os.cpu_count(),
        "threads": threads or os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "torch": importlib.metadata.version("torch"),
        "commit": git.stdout.strip() or "unknown",
        "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip


def write_report(rows: list[Row], about: Row, command: str, folder: Path) -> None:
    """`results.json` and `report.md`."""
    folder.mkdir(parents=True, exist_ok=True)
    data = {"about": about, "command": command, "rows": rows}
    (folder / "results.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    lines = ["# Speed and memory of the upsamplers", "", f"    {command}", ""]
    lines += [f"- {key}: {value}" for key, value in about.items()]
    lines += ["", (__doc__ or "").split("\n\n")[2].replace("\n", " "), ""]
    for section, columns in _COLUMNS.items():
        found = [row for row in rows if row["section"] == section]
        if not found:
            continue
        lines += [f"## {section.capitalize()}", "", _line(columns), _line("---" for _ in columns)]
        lines += [_line(_format(row.get(c)) for c in columns) for row in found] + [""]
    slower = [r for r in rows if r.get("times_faster", 1) < 1]
    lines += ["## Cases we lose", ""]
    lines += [f"- {r['name']}, {r['way']}: {r['times_faster']:.2f}×" for r in slower] or ["None."]
    (folder / "report.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _line(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def _format(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN", help="(default: *)")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    parser.add_argument("--threads", type=int, help="(default: torch's)")
    parser.add_argument("--output", type=Path, help="folder for results.json and report.md")
    args = parser.parse_args(argv)
    names = [n for n in MEASUREMENTS if any(fnmatch.fnmatch(n, p) for p in args.only)]
    if not names:
        parser.error(f"--only {' '.join(args.only)} fits no measurement; see --list")
    if args.list:
        print("\n".join(names))
        return 0
    about, rows = environment(args.threads), []
    for name in names:
        work, arguments = MEASUREMENTS[name]
        for row in run_fresh(work, *arguments, threads=args.threads):
            rows.append(row)
            print(json.dumps(row, ensure_ascii=False), flush=True)
    if args.output:
        given = sys.argv[1:] if argv is None else argv
        command = " ".join(["python benchmarks/speed.py", *given])
        write_report(rows, about, command, args.output)
        print(f"written: {args.output / 'report.md'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
