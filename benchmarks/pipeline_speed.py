"""How fast is the whole pipeline? It against the naive chain, part by part.

    python benchmarks/pipeline_speed.py --output outputs/pipeline_speed
    python benchmarks/pipeline_speed.py --only part/text         # one part alone
    python benchmarks/pipeline_speed.py --list                   # the names

The naive chain is `benchmarks/plain/pipeline.py`. All ways run in one process on the same random
weights of `vit-b16`'s sizes: five words, an image of 500×375 pixels, 40 clicks; each part is
measured in all ways before the next. The first call is told apart, `cpu_s` is the processor time of
all threads, and a later part gets what the earlier parts of its own way gave. Memory is measured in
a fresh process each: peak of the whole chain minus what the loaded models held. With random weights
the words hardly differ, so that bfloat16 changes the best word more often than it would otherwise.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if not __package__:  # run as a file: Python looks for packages beside it
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measuring import (
    MACHINE,
    MACHINE_COLUMNS,
    TIMES,
    Measurements,
    Row,
    above_loaded,
    errors,
    gains,
    measure,
    run_program,
)

if TYPE_CHECKING:
    from benchmarks.plain.pipeline import PlainPipeline
    from models.presets import Preset

PRESET = "vit-b16"
PARTS = ("text", "clip", "loftup", "sam_image", "sam_prompts")
NEEDS = {"loftup": ("text", "clip"), "sam_prompts": ("sam_image",)}  # earlier parts
WAYS = ("plain", "float32", "bfloat16")
REPEATS = {"plain": 1, "float32": 2, "bfloat16": 2}  # after the first call
BATCHES = (1, 2, 4, 8, 40)
_COLUMNS = {
    "machine": MACHINE_COLUMNS,
    "parts": ("name", "way", *TIMES),
    "total": ("name", "way", *TIMES),
    "agreement": ("name", "way", "max_error", "min_cosine", "equal_pixels"),
    "batches": ("name", "way", "median_s", "cpu_s"),
    "memory": ("name", "way", "loaded_mib", "above_loaded_mib", "seconds"),
}


class OurPipeline:
    """`Segmenter`'s networks as it runs them; the parts and results of `PlainPipeline`."""

    def __init__(self, plain: PlainPipeline, preset: Preset, precision: str) -> None:
        """`precision` as `PipelineConfig` has it."""
        from unittest.mock import patch

        from models.dense import Dense, DenseConfig
        from models.device import check_precision
        from models.networks import Networks
        from models.sam2_masks import Sam2Masks
        from models.vocabulary import Vocabulary

        models = plain.models
        self._image, self._points = plain.image, plain.points
        self._words = Vocabulary.parse(plain.words)
        with (  # there are no files of these weights
            patch("models.networks.load_clip", lambda _: (models.clip, models.tokenizer)),
            patch("models.weights.load_loftup", lambda _: models.loftup),
        ):
            config = DenseConfig(upsampler="loftup", loftup_share=1.0, precision=precision)
            self._dense = Dense(Networks(preset, "cpu"), config)
            self._dense.networks.load(self._dense.config)
        dtype = check_precision(precision, self._dense.device)
        self._sam = Sam2Masks(models.sam, dtype=dtype)

    def run_text(self) -> None:
        self._dense.networks.forget_words()
        self.text = self._dense.encode_text(self._words.query_words)

    def run_clip(self) -> None:
        self._encoded = self._dense.encode(self._image)
        self.features = self._encoded.windows.features

    def run_loftup(self) -> None:
        self.scores = self._dense.scores(self._encoded, self._words)

    def run_sam_image(self) -> None:
        self._sam.set_image(self._image.copy())  # an array it has not seen
        self.embedding = self._sam._embedding

    def run_sam_prompts(self, batch_size: int | None = None) -> None:
        import numpy as np

        points = self._points[:, None]
        labels = np.ones(points.shape[:2], np.int64)
        logits, iou = self._sam.decode(points, labels, batch_size=batch_size)
        self.iou = iou.numpy()
        best = logits[list(range(len(iou))), iou.argmax(dim=1)]
        self.masks = self._sam.upscale(best).numpy()


def chains(preset: str | Preset, ways: tuple[str, ...] = WAYS) -> dict[str, Any]:
    """The whole pipeline on the same networks and inputs, in those ways that the CPU offers."""
    import torch

    from benchmarks.plain.pipeline import PlainPipeline, random_models, scene
    from models.device import fast_bfloat16
    from models.presets import get_preset
    from models.protocols import get_protocol

    preset = get_preset(preset) if isinstance(preset, str) else preset
    protocol = preset.protocol
    protocol = get_protocol(protocol) if isinstance(protocol, str) else protocol
    plain = PlainPipeline(random_models(preset), protocol, *scene())
    able = fast_bfloat16(torch.device("cpu"))
    return {
        way: plain if way == "plain" else OurPipeline(plain, preset, way)
        for way in ways
        if able or way != "bfloat16"
    }


def pipeline(parts: tuple[str, ...], preset: str | Preset = PRESET) -> list[Row]:
    """Times and agreement of some parts; what they need is made first."""
    made, rows = chains(preset), []
    for part in PARTS:
        if part not in parts:
            if any(part in NEEDS.get(other, ()) for other in parts):
                for chain in made.values():
                    getattr(chain, f"run_{part}")()
            continue
        times = [
            {"section": "parts", "name": part, "way": way,
             **measure(getattr(chain, f"run_{part}"), REPEATS[way])}
            for way, chain in made.items()
        ]  # fmt: skip
        rows += [row | gains(times[0], row) for row in times]
    plain, *ours = made.items()
    rows += [
        {"section": "agreement", "name": part, "way": way, **agreement(part, plain[1], chain)}
        for part in parts
        for way, chain in ours
    ]
    if len(parts) == len(PARTS):
        totals = []
        for way in made:
            mine = [row for row in rows if row["way"] == way and row["section"] == "parts"]
            sums = {key: sum(row[key] for row in mine) for key in TIMES[:4]}
            totals.append({"section": "total", "name": "all parts", "way": way, **sums})
        rows += [row | gains(totals[0], row) for row in totals]
    return rows


def agreement(part: str, plain: PlainPipeline, ours: OurPipeline) -> Row:
    """How far the results of one part are from the plain ones.

    `equal_pixels`: share of the pixels with the same best word, or of the masks' pixels.
    """
    if part == "sam_prompts":
        return {
            "max_error": float(abs(plain.iou - ours.iou).max()),
            "equal_pixels": float((plain.masks == ours.masks).mean()),
        }
    name = {"text": "text", "clip": "features", "loftup": "scores", "sam_image": "embedding"}[part]
    expected, found = getattr(plain, name), getattr(ours, name)
    row = errors(expected, found)
    if part == "loftup":  # scores are no vectors
        del row["min_cosine"]
        equal = expected.argmax(dim=0) == found.argmax(dim=0)
        row["equal_pixels"] = float(equal.float().mean())
    return row


def batches(preset: str | Preset = PRESET) -> list[Row]:
    """All prompts decoded in batches of several sizes."""
    chain = chains(preset, ("float32",))["float32"]
    chain.run_sam_image()
    return [
        {"section": "batches", "name": "sam_prompts", "way": f"{size} at once",
         **measure(lambda size=size: chain.run_sam_prompts(size), 2)}
        for size in BATCHES
    ]  # fmt: skip


def memory(way: str, preset: str | Preset = PRESET) -> list[Row]:
    """Of one chain, above its loaded models: run it in a fresh process."""
    chain = chains(preset, (way,)).get(way)
    if chain is None:
        return []
    row = above_loaded(lambda: [getattr(chain, f"run_{part}")() for part in PARTS])
    return [{"section": "memory", "name": "all parts", "way": way, **row}]


# By name: a function and its arguments.
MEASUREMENTS: Measurements = {
    **MACHINE,
    "pipeline": (pipeline, (PARTS,)),
    "batches": (batches, ()),
    **{f"memory/{way}": (memory, (way,)) for way in WAYS},
    **{f"part/{part}": (pipeline, ((part,),)) for part in PARTS},
}
DEFAULT = ("machine/*", "pipeline", "batches", "memory/*")  # the parts are in "pipeline" too


def main(argv: list[str] | None = None) -> int:
    title = "Speed and memory of the whole pipeline"
    return run_program(title, __doc__, MEASUREMENTS, _COLUMNS, argv, DEFAULT)


if __name__ == "__main__":
    raise SystemExit(main())
