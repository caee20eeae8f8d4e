"""A long run over many images: does memory stay flat, and does killing the program lose anything?

    python benchmarks/folder.py --output outputs/folder
    python benchmarks/folder.py --images 100 --kills 2 --output outputs/short -- --use-loftup

Small rendered scenes are segmented twice at the same time by the root program with `tiny`, each on
one thread: once in one go, whose resident memory is watched (in /proc: on Linux only), and once
killed (SIGKILL) at random moments and started again. Then all files of both runs are compared byte
for byte, but for the seconds they tell. What follows `--` goes to the root program. Written are
results.json, memory.csv and memory.png; the last line printed is the JSON. The exit status is 1 if
a file differs.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
if not __package__:  # run as a file: Python looks for packages beside it
    sys.path.insert(0, str(ROOT))

from benchmarks.measuring import environment, resident_mib
from pipeline.world.scenes import load_world, render_scene

SEED_TAG = 1_000_000_007  # no other seeds of this project begin with it
SIDES = (96, 225)  # px, least and below greatest
WORDS = ("person", "car", "dog", "tree", "building")
SETTLED = 0.1  # share of the images after which memory should not grow
EVERY = 0.5  # seconds between two looks

Row = tuple[float, int, float]  # seconds, images done, resident MiB


def render_images(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for index in tqdm(range(count), unit="image", desc="rendering", disable=None):
        rng = np.random.default_rng([SEED_TAG, index])
        height, width = (int(side) for side in rng.integers(*SIDES, size=2))
        scene = render_scene(
            load_world(), rng, size=(height, width), objects=(1, 4), side=(20.0, 100.0)
        )
        Image.fromarray(scene.image).save(folder / f"{index:05d}.png")


class Run:
    """The root program over a folder, in a process of its own."""

    def __init__(self, images: Path, output: Path, options: Sequence[str]) -> None:
        self._json, self._log = output / "json", output.with_suffix(".log")
        program = str(ROOT / "clip_guided_segmentation_loftup.py")
        self._command = [
            sys.executable, program, "--image", str(images), "--output", str(output),
            "--preset", "tiny", "--vocabulary", *WORDS, *options,
        ]  # fmt: skip

    def start(self) -> subprocess.Popen:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                self._command, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"}
            )

    def done(self) -> int:
        """Images that have a result."""
        return len(list(self._json.glob("*.json")))

    def check(self, process: subprocess.Popen) -> None:
        if process.wait():
            raise RuntimeError(f"exit status {process.returncode}, see {self._log}")


def watch(run: Run) -> list[Row]:
    """One go."""
    rows: list[Row] = []
    start, process = time.perf_counter(), run.start()
    while process.poll() is None:
        with contextlib.suppress(OSError):
            if mib := resident_mib(process.pid):  # none, or no file: it has just ended
                rows.append((time.perf_counter() - start, run.done(), mib))
        time.sleep(EVERY)
    run.check(process)
    return rows


def kill_and_resume(run: Run, moments: Sequence[float]) -> list[int]:
    """Kill when so many images are done (and a part of the next); the images done at each kill."""
    killed = []
    for moment in moments:
        process = run.start()
        while run.done() < int(moment):
            if process.poll() is not None:
                raise RuntimeError(f"ended before image {moment:.0f}, see {run._log}")
            time.sleep(EVERY)
        time.sleep(moment % 1)  # an image takes about a second
        process.kill()
        process.wait()
        killed.append(run.done())
    run.check(run.start())
    return killed


def differences(first: Path, second: Path) -> list[str]:
    """Names of the files that are not in both folders, or not the same."""
    names = {
        str(path.relative_to(folder))
        for folder in (first, second)
        for path in folder.rglob("*")
        if path.is_file()
    }
    return sorted(name for name in names if _content(first / name) != _content(second / name))


def _content(path: Path) -> object:
    if not path.is_file():
        return None
    if path.suffix == ".json":
        data = json.loads(path.read_bytes())
        return {key: value for key, value in data.items() if key != "timings"}
    if path.name == "summary.csv":
        with path.open(encoding="utf-8", newline="") as file:
            return [
                {k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)
            ]
    return path.read_bytes()


def summarise(rows: Sequence[Row], count: int) -> dict[str, float]:
    """Of the watched run: MiB at its ends, growth per 1,000 images, seconds an image."""
    seconds, images, mib = np.array(rows).T
    late = images >= SETTLED * count
    slope, _ = np.polyfit(images[late], mib[late], 1)
    return {
        "mib_when_settled": float(mib[late][0]),
        "mib_at_the_end": float(mib[late][-1]),
        "mib_peak": float(mib.max()),
        "mib_growth_per_1000_images": float(1000 * slope),
        "seconds_per_image": float(np.ptp(seconds[late]) / np.ptp(images[late])),
    }


def plot(rows: Sequence[Row], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    _, images, mib = np.array(rows).T
    figure = Figure(figsize=(7, 3), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(
        xlabel="images done", ylabel="resident memory, MiB", ylim=(0, 1.15 * mib.max())
    )
    axes.plot(images, mib, linewidth=1)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=1000, help="(default: %(default)s)")
    parser.add_argument("--kills", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: %(default)s)")
    parser.add_argument("--output", type=Path, required=True, help="folder for all of it")
    parser.add_argument("options", nargs="*", help="for the root program, after --")
    args = parser.parse_args(argv)
    if args.images < 20 or not 0 <= args.kills < args.images:
        parser.error("--images must be at least 20, --kills fewer than these and not negative")
    if not Path("/proc/self/status").exists():
        parser.error("memory is read from /proc, which this system does not have; use Linux")
    if args.output.exists():
        parser.error(f"--output {args.output} exists; give a new folder")

    images = args.output / "images"
    render_images(images, args.images)
    whole, killed = args.output / "whole", args.output / "killed"
    moments = np.sort(np.random.default_rng(args.seed).uniform(1, args.images - 1, args.kills))
    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch, Run(images, whole, args.options))
        kills = kill_and_resume(Run(images, killed, args.options), moments)
        rows = watching.result()

    found = differences(whole, killed)
    result = {
        "images": args.images,
        "options": args.options,
        "killed_when_done": kills,
        "files": sum(path.is_file() for path in whole.rglob("*")),
        "files_that_differ": found,
        **summarise(rows, args.images),
        "about": environment(1),
    }
    with (args.output / "memory.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("seconds", "images", "mib"), *rows])
    plot(rows, args.output / "memory.png")
    (args.output / "results.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
