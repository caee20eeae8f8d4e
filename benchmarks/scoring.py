"""What scoring predictions costs: reading and all metrics, per image of 500×375 px on one core.

    python benchmarks/scoring.py                # 200 images, and 800 for the memory
    python benchmarks/scoring.py --images 1449

Label maps are smooth random regions of about four classes with objects and void rims, in VOC's
layout in a temporary folder. Times are of the steps of `pipeline.evaluate.score`, per image; speed
and memory are of that function itself, in fresh processes. The last line printed is the JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

# Run as a file, Python looks for packages beside it, not in the repository's root.
ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from pipeline.datasets.voc import VocDataset
from pipeline.evaluation.arm_scores import ArmScores
from pipeline.evaluation.metrics import IGNORE, edge_band
from pipeline.evaluation.scores import score_image
from pipeline.files.label_png import write_index_png

SIZE = (375, 500)
ARM = "random"
WARM_UP = 20
STEPS = ("read truth", "read prediction", "metrics", "sums")


def _smooth(rng: np.random.Generator, step: int) -> np.ndarray:
    """(H, W) float32 noise of about unit variance that changes within `step` pixels."""
    coarse = rng.normal(size=(SIZE[0] // step + 2, SIZE[1] // step + 2)).astype(np.float32)
    noise = cv2.resize(coarse, SIZE[::-1], interpolation=cv2.INTER_CUBIC)
    return noise / noise.std()


def label_maps(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, prediction and objects, (H, W) uint8 each: a few classes, outlines off by pixels."""
    truth, predicted, objects = np.zeros((3, *SIZE), np.uint8)
    number = 0
    for label in rng.choice(np.arange(1, 21), 3, replace=False):
        field = _smooth(rng, 120)
        mask = field > 1.2
        found, parts = cv2.connectedComponents(mask.view(np.uint8))
        found = min(found, 254 - number)
        truth[mask] = label
        objects[mask] = np.where(parts[mask] < found, number + parts[mask], 0)
        number += found - 1
        predicted[field + 0.25 * _smooth(rng, 15) > 1.1] = label
    rim = edge_band(truth, 2)
    truth[rim] = objects[rim] = IGNORE
    return truth, predicted, objects


def write_data(root: Path, predictions: Path, distinct: int, total: int) -> None:
    """A VOC folder of `total` images with predictions; those after `distinct` are copies."""
    from pipeline.evaluation.predict import prediction_files

    folders = [root / name for name in ("JPEGImages", "SegmentationClass", "SegmentationObject")]
    lists = root / "ImageSets" / "Segmentation"
    for folder in (*folders, lists, predictions / ARM):
        folder.mkdir(parents=True)
    ids = [f"2012_{index:06d}" for index in range(total)]
    (lists / "val.txt").write_text("\n".join(ids) + "\n", encoding="utf-8")

    def files(image_id: str) -> list[Path]:
        ends = ("jpg", "png", "png")
        truth = [f / f"{image_id}.{end}" for f, end in zip(folders, ends, strict=True)]
        return [*truth, *prediction_files(predictions, ARM, image_id)]

    for index, image_id in enumerate(ids):
        if index >= distinct:
            for source, target in zip(files(ids[index % distinct]), files(image_id), strict=True):
                shutil.copyfile(source, target)
            continue
        truth, predicted, objects = label_maps(np.random.default_rng(index))
        image, *maps, record = files(image_id)
        Image.new("RGB", SIZE[::-1]).save(image)  # of which scoring reads the size alone
        for path, values in zip(maps, (truth, objects, predicted), strict=True):
            write_index_png(path, values)
        record.write_text(json.dumps({"seconds": {"map": 1.0}}), encoding="utf-8")


def time_steps(root: Path, predictions: Path, images: int) -> dict[str, list[float]]:
    """Seconds of every step and image, on one thread."""
    from pipeline.evaluation.predict import read_prediction

    cv2.setNumThreads(1)
    dataset = VocDataset.open(root, limit=images)
    seconds: dict[str, list[float]] = {step: [] for step in STEPS}
    sums = ArmScores(0)
    warm_up = [dataset.ids[i % images] for i in range(WARM_UP)]
    for image_id in (*warm_up, *dataset.ids):
        times = [time.perf_counter()]
        truth = dataset.load_truth(image_id)
        times.append(time.perf_counter())
        predicted, record = read_prediction(predictions, ARM, image_id)
        times.append(time.perf_counter())
        scores = score_image(truth.labels, predicted, truth.objects)
        times.append(time.perf_counter())
        sums.add(image_id, scores, record, truth)
        times.append(time.perf_counter())
        for step, value in zip(STEPS, np.diff(times), strict=True):
            seconds[step].append(float(value))
    return {step: values[WARM_UP:] for step, values in seconds.items()}


def score_all(root: Path, predictions: Path, images: int) -> dict[str, float]:
    """Images per second of `score`, and the process's peak memory in MiB before and after it."""
    from pipeline.evaluate import score

    cv2.setNumThreads(1)
    dataset = VocDataset.open(root, limit=images)
    before = _peak()
    start = time.perf_counter()
    score(dataset, [ARM], predictions)
    seconds = time.perf_counter() - start
    return {"images_per_second": images / seconds, "before_mib": before, "peak_mib": _peak()}


def _peak() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # macOS counts bytes, Linux KiB


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--images", type=int, default=200, help="default: %(default)s")
    args = parser.parse_args(argv)
    if args.images < 1:
        parser.error(f"--images must be at least 1, got {args.images}")

    sizes = (args.images, 4 * args.images)
    context = multiprocessing.get_context("spawn")  # a fork would start with this process's peak
    with tempfile.TemporaryDirectory() as folder:
        places = Path(folder) / "VOC2012", Path(folder) / "predictions"
        with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool:
            pool.submit(write_data, *places, *sizes).result()
            seconds = pool.submit(time_steps, *places, args.images).result()
            whole = {n: pool.submit(score_all, *places, n).result() for n in sizes}

    seconds["all"] = np.sum(list(seconds.values()), axis=0).tolist()
    table = {
        step: dict(zip(("q25", "median", "q75"), _quartiles(values), strict=True))
        for step, values in seconds.items()
    }
    print(f"\n{args.images} images of {SIZE[1]}×{SIZE[0]} px, one thread, ms per image\n")
    print("| step | 25 % | median | 75 % |\n| --- | ---: | ---: | ---: |")
    for step, row in table.items():
        print(f"| {step} | {row['q25']:.2f} | {row['median']:.2f} | {row['q75']:.2f} |")
    print("\n| images | images/s | MiB before | peak MiB |\n| ---: | ---: | ---: | ---: |")
    for number, row in whole.items():
        print(
            f"| {number} | {row['images_per_second']:.0f} | {row['before_mib']:.0f} "
            f"| {row['peak_mib']:.0f} |"
        )
    result = {
        "size": list(SIZE),
        "ms_per_image": table,
        "runs": [{"images": n} | {k: round(v, 1) for k, v in r.items()} for n, r in whole.items()],
        "machine": {"processor": platform.machine(), "python": platform.python_version()},
        "versions": {"numpy": np.__version__, "opencv": cv2.__version__},
    }
    print(f"\n{json.dumps(result)}")
    return 0


def _quartiles(seconds: list[float]) -> list[float]:
    return np.round(1000 * np.quantile(seconds, [0.25, 0.5, 0.75]), 3).tolist()


if __name__ == "__main__":
    raise SystemExit(main())
