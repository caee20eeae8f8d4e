"""A benchmark's results as `results.json` and `timings.json` hold them, with made-up numbers."""

import dataclasses
import itertools

import numpy as np

from pipeline.world.scenes import VOC_NOUNS

LABELS = ("background", *VOC_NOUNS[:10], "diningtable", *VOC_NOUNS[10:])
BINS = ("under 100 px²", "100 px² to 32²", "32² to 96²", "over 96²")
STAGES = {"CLIP": 0.21, "text": 0.01, "LoftUp": 0.52, "scores": 0.08, "SAM 2": 0.9, "masks": 0.11}


def make_results(arms=("bilinear", "loftup", "loftup+sam2"), *, gains=None, sizes=True, failed=()):
    """Plausible results; `gains` are the points of mIoU of each arm above the first.

    No image shows a dining table, so its numbers are null; the sofa is worse in every arm that
    differs from the first.
    """
    gains = gains or {arm: 6.0 * i for i, arm in enumerate(arms)}
    rng = np.random.default_rng(5)
    base = rng.uniform(20, 75, len(LABELS))
    found = {}
    for arm in arms:
        per_class = np.clip(base + gains[arm] * rng.uniform(-0.3, 2.3, len(LABELS)), 0, 100)
        per_class = {
            name: None if name == "diningtable" else round(float(value), 2)
            for name, value in zip(LABELS, per_class, strict=True)
        }
        per_class["sofa"] = round(float(base[LABELS.index("sofa")]) - abs(gains[arm]) / 4, 2)
        mean = 45 + gains[arm]
        found[arm] = {
            "mIoU": round(mean, 2),
            "mIoU_interval": [round(mean - 2.5, 2), round(mean + 2.2, 2)],
            "mAcc": round(mean + 9, 2),
            "aAcc": round(mean / 2 + 45, 2),
            "boundary_IoU": round(0.6 * mean, 2),
            "edge_mIoU": round(0.55 * mean, 2),
            "per_class": per_class,
            "per_class_boundary": per_class,
            "per_class_accuracy": per_class,
            "sizes": _sizes(mean) if sizes else None,
            "confusion": [[0] * len(LABELS)] * len(LABELS),
        }
        if "sam2" in arm:
            found[arm]["prompts"] = {
                "per_image": 5.4, "reduction": 99.5, "points": 1080, "points_on_class": 66.9,
                "masks": 1000, "fallbacks": 5.3, "predicted_iou": 81.0, "true_iou": 62.0,
                "correlation": 0.55,
            }  # fmt: skip
    return {
        "settings": _settings(arms[0]),
        "versions": {"python": "3.12.3", "torch": "2.14.0"},
        "commit": "456fe1b",
        "images": {
            "listed": 1449,
            "asked": 200,
            "scored": 200 - len(failed),
            "failed": [{"id": name, "error": error} for name, error in failed],
        },
        "labels": list(LABELS),
        "arms": found,
        "differences": {
            f"{later} - {earlier}": _difference(gains[later] - gains[earlier])
            for earlier, later in itertools.combinations(arms, 2)
        },
    }


def make_timings(arms=("bilinear", "loftup", "loftup+sam2")):
    """Times of the stages that each arm has by its name."""
    times = {}
    for arm in arms:
        used = [s for s in STAGES if s != "LoftUp" or "loftup" in arm]
        used = [s for s in used if s not in ("SAM 2", "masks") or "sam2" in arm]
        times[arm] = {
            s: {"median": STAGES[s], "q25": STAGES[s], "q75": STAGES[s], "mean": STAGES[s]}
            for s in used
        }
    return {"arms": times, "machine": {"cpu": "2 cores", "torch threads": 1}}


def _difference(gain):
    scaled = {"mIoU": gain, "boundary_IoU": 0.6 * gain, "edge_mIoU": 1.5 * gain}
    return {
        metric: {
            "difference": round(value, 2),
            "low": round(value - 1.2, 2),
            "high": round(value + 1.3, 2),
        }
        for metric, value in scaled.items()
    }


def _sizes(mean):
    shares, counts = (0.02, 0.3, 0.8, 1.1), (0, 214, 402, 96)
    return {
        name: {
            "objects": count,
            "mIoU": round(share * mean, 2) if count else None,
            "recall": round(share * mean + 5, 2) if count else None,
            "found": round(share * mean - 0.5, 2) if count else None,
        }
        for name, share, count in zip(BINS, shares, counts, strict=True)
    }


def _settings(baseline):
    from models.protocols import PROTOCOLS
    from pipeline.config import PipelineConfig

    return {
        "root": "/data/VOC|2012",
        "split": "val",
        "limit": None,
        "preset": "tiny",
        "protocol": dataclasses.asdict(PROTOCOLS["sclip-voc21"]),
        "config": PipelineConfig().to_dict(),
        "device": "cpu",
        "threads": 1,
        "baseline": baseline,
        "resamples": 2000,
        "seed": 0,
    }
