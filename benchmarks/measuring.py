"""What the speed benchmarks share: clocks, memory, fresh processes, the report."""

from __future__ import annotations

import argparse
import fnmatch
import json
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

Row = dict[str, Any]
Measurements = Mapping[str, tuple[Callable[..., list[Row]], tuple]]  # function and arguments
Columns = Mapping[str, tuple[str, ...]]

REPEATS = 3
TIMES = ("first_s", "median_s", "spread_s", "cpu_s", "times_faster", "times_less_cpu")


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


def gains(plain: Row, row: Row) -> Row:
    """How much less time one row of `measure` tells than another."""
    return {
        "times_faster": plain["median_s"] / row["median_s"],
        "times_less_cpu": plain["cpu_s"] / row["cpu_s"],
    }


def errors(expected: Tensor, found: Tensor) -> Row:
    """Largest difference, and smallest cosine of the vectors along dimension 1."""
    from torch.nn import functional as F

    cosines = F.cosine_similarity(found.double(), expected.double(), dim=1)
    error = (found.float() - expected.float()).abs().max()
    return {"max_error": float(error), "min_cosine": float(cosines.min())}


def compare(name: str, ways: Mapping[str, Callable[[], Tensor]]) -> list[Row]:
    """A row per way to compute the same: its times, and its result, beside those of the first."""
    import torch

    rows, plain = [], None
    with torch.no_grad():
        for way, work in ways.items():
            row = {"section": "speed", "name": name, "way": way, **measure(work)}
            output = work()
            plain = output if plain is None else plain
            rows.append(row | gains(rows[0] if rows else row, row) | errors(plain, output))
    return rows


def machine(precision: str) -> list[Row]:
    """The machine's own rate: a product of two square matrices."""
    import torch

    side = 2048
    x = torch.randn(side, side).to(getattr(torch, precision))
    gflop, row = 2 * side**3 / 1e9, measure(lambda: x @ x)
    return [{"section": "machine", "precision": precision,
             "gflops_per_second": gflop / row["median_s"],
             "gflops_per_cpu_second": gflop / row["cpu_s"]}]  # fmt: skip


MACHINE: Measurements = {f"machine/{p}": (machine, (p,)) for p in ("float32", "bfloat16")}
MACHINE_COLUMNS = ("precision", "gflops_per_second", "gflops_per_cpu_second")


def in_bfloat16(work: Callable) -> Callable:
    import torch

    return torch.autocast("cpu", torch.bfloat16)(work)


def peak_mib() -> float:
    status = Path("/proc/self/status")
    if status.exists():  # unlike ru_maxrss it does not begin with the parent's memory
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # macOS counts bytes, else KiB


def resident_mib(process: int | str = "self") -> float:
    """Of this process; of another by its number, where there is /proc."""
    statm = Path(f"/proc/{process}/statm")
    if process == "self" and not statm.exists():
        return peak_mib()
    return int(statm.read_text().split()[1]) * resource.getpagesize() / 2**20


def above_loaded(work: Callable[[], object]) -> Row:
    """Memory of a call, MiB: run it in a fresh process, when all that it needs is loaded."""
    loaded, start = resident_mib(), time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    return {"loaded_mib": loaded, "above_loaded_mib": peak_mib() - loaded, "seconds": seconds}


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

    from pipeline.evaluation.report.outputs import commit, processor

    cpuinfo = Path("/proc/cpuinfo")
    flags = set(cpuinfo.read_text().split() if cpuinfo.exists() else ())
    return {
        "processor": processor(),
        "instructions": [f for f in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f in flags],
        "cores": os.cpu_count(),
        "threads": threads or int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "torch": importlib.metadata.version("torch"),
        "commit": commit() or "unknown",
        "date": time.strftime("%Y-%m-%d"),
    }


def write_report(
    title: str,
    method: str,
    columns: Columns,
    rows: list[Row],
    about: Row,
    command: str,
    folder: Path,
) -> None:
    """`results.json` and `report.md`: a table per section of `columns`."""
    folder.mkdir(parents=True, exist_ok=True)
    data = {"about": about, "command": command, "rows": rows}
    (folder / "results.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    lines = [f"# {title}", "", f"    {command}", ""]
    lines += [f"- {key}: {value}" for key, value in about.items()]
    lines += ["", method, ""]
    for section, names in columns.items():
        found = [row for row in rows if row["section"] == section]
        if not found:
            continue
        lines += [f"## {section.capitalize()}", "", _line(names), _line("---" for _ in names)]
        lines += [_line(_format(row.get(c)) for c in names) for row in found] + [""]
    slower = [r for r in rows if r.get("times_faster", 1) < 1]
    lines += ["## Cases we lose", ""]
    lines += [f"- {r['name']}, {r['way']}: {r['times_faster']:.2f}×" for r in slower] or ["None."]
    (folder / "report.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _line(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def _format(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def run_program(
    title: str,
    description: str | None,
    measurements: Measurements,
    columns: Columns,
    argv: Sequence[str] | None = None,
    default: Sequence[str] = ("*",),
) -> int:
    """A program that takes measurements, each in a fresh process; returns the exit status.

    Args:
        title: of the report.
        description: for --help; its third paragraph, the method, goes into the report.
        measurements: by name, what can be measured.
        columns: per section of the rows, what the report shows.
        argv: the command line.
        default: patterns of the names that are measured unless others are asked for.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="PATTERN",
                        help=f"(default: {' '.join(default)})")  # fmt: skip
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    parser.add_argument("--threads", type=int, help="(default: torch's)")
    parser.add_argument("--output", type=Path, help="folder for results.json and report.md")
    args = parser.parse_args(argv)
    patterns = args.only or (["*"] if args.list else default)
    names = [n for n in measurements if any(fnmatch.fnmatch(n, p) for p in patterns)]
    if not names:
        parser.error(f"--only {' '.join(patterns)} fits no measurement; see --list")
    if args.list:
        print("\n".join(names))
        return 0
    about, rows = environment(args.threads), []
    for name in names:
        work, arguments = measurements[name]
        for row in run_fresh(work, *arguments, threads=args.threads):
            rows.append(row)
            print(json.dumps(row, ensure_ascii=False), flush=True)
    if args.output:
        given = sys.argv[1:] if argv is None else argv
        command = " ".join([f"python benchmarks/{parser.prog}", *given])
        method = (description or "").split("\n\n")[2].replace("\n", " ")
        write_report(title, method, columns, rows, about, command, args.output)
        print(f"written: {args.output / 'report.md'}")
    return 0
