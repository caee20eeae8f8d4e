"""What do a second network and regions cost? ProxyCLIP's and CorrCLIP's steps at real sizes.

    python benchmarks/dense_methods.py --output outputs/dense_methods
    python benchmarks/dense_methods.py --only stages/proxy8       # one way alone
    python benchmarks/dense_methods.py --list                     # the names

Random weights of the real sizes: CLIP ViT-B/16, DINOv2 ViT-B/14, its LoftUp, SAM 2 large; the
bundled scene at 500×375 pixels, in windows of 336 every 112. "attention" compares the mixing of one
window's values with the plain computation, which holds all n² weights, in one process: proxies of
24×24 cells, and upsampled 2× and 4×; at 8×, the plain one's weights alone are 5.4 GB each time they
are copied, so that only its memory at 4× is told. "stages" runs the whole dense step in a fresh
process and tells the seconds of each stage; memory is the peak above the loaded models.
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
    compare,
    run_program,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

PATCHES, CELLS = 21, 24  # of a window of 336 pixels: CLIP's side, the proxy's
WIDTH, CHANNELS = 768, 768  # of CLIP's transformer, of DINOv2
PROXY = "dinov2_vitb14"
# Stages of a dense step, by the name of the way: settings.
STAGES: dict[str, dict[str, Any]] = {
    "csa": {"attention": "csa"},
    "proxy": {"attention": "proxy", "proxy": PROXY},
    "proxy8": {
        "attention": "proxy", "proxy": PROXY, "proxy_scale": 8, "proxy_upsampler": "loftup",
    },
    "proxy8-bilinear": {"attention": "proxy", "proxy": PROXY, "proxy_scale": 8},
    "corr": {"attention": "corr", "proxy": PROXY},
    "corr8-bilinear": {"attention": "corr", "proxy": PROXY, "proxy_scale": 8},
}  # fmt: skip
_COLUMNS = {
    "machine": MACHINE_COLUMNS,
    "speed": ("name", "way", *TIMES, "max_error"),
    "memory": ("name", "way", "above_loaded_mib", "seconds"),
    "stages": ("name", "stage", "seconds"),
}


def inputs(scale: int) -> tuple[Tensor, Tensor, tuple[int, int], Tensor]:
    """Cells, values, the proxy's grid and a region map of one window: smooth, as features are."""
    import torch
    from torch.nn import functional as F

    from models.proxy_attention import unit_cells

    generator = torch.Generator().manual_seed(0)
    side = CELLS * scale
    proxy = torch.randn(1, CHANNELS, 6, 6, generator=generator) + 0.5
    cells = unit_cells(F.interpolate(proxy, (side, side), mode="bilinear"))[0]
    values = torch.randn(WIDTH, PATCHES, PATCHES, generator=generator)
    rows = torch.arange(side) * 5 // side
    regions = rows[:, None] * 5 + rows - 1  # 25 squares, the first no region
    return cells, values, (side, side), regions.flatten()


def ways(method: str, scale: int) -> dict[str, Callable[[], Tensor]]:
    """Plain and ours."""
    import torch

    from benchmarks.plain.proxy_attention import plain_corr, plain_proxy
    from models.corr import corr_logits
    from models.proxy_attention import attend, proxy_logits

    cells, values, size, regions = inputs(scale)
    if method == "proxy":
        return {
            "plain": lambda: plain_proxy(cells, values, size),
            "strips": lambda: torch.cat(list(attend(values, size, proxy_logits(cells)))),
        }
    return {
        "plain": lambda: plain_corr(cells, values, size, regions),
        "strips": lambda: torch.cat(list(attend(values, size, corr_logits(cells, cells, regions)))),
    }


def attention(method: str, scale: int) -> list[Row]:
    """Speed of one window's mixing."""
    return compare(f"{method}, n = {(CELLS * scale) ** 2:,}", ways(method, scale))


def memory(method: str, scale: int, way: str) -> list[Row]:
    """Of one window's mixing, in a fresh process."""
    row = above_loaded(ways(method, scale)[way])
    name = f"{method}, n = {(CELLS * scale) ** 2:,}"
    return [{"section": "memory", "name": name, "way": way, **row}]


def stages(way: str) -> list[Row]:
    """The whole dense step of one image, in a fresh process."""
    from unittest.mock import patch

    import torch

    from benchmarks.plain.pipeline import random_models, scene
    from models.backbones.build import build_backbone
    from models.dense import Dense, DenseConfig
    from models.loftup.network import LoftUp
    from models.networks import Networks
    from models.presets import get_preset
    from models.protocols import get_protocol
    from models.vocabulary import Vocabulary

    preset = get_preset("vit-b16")
    made, (image, words, _) = random_models(preset), scene()
    words = Vocabulary.parse(words)
    loftup = LoftUp(CHANNELS).eval().requires_grad_(False)

    def backbone(name: str, **_: object) -> Any:
        return build_backbone(name, random_weights=True)

    config = DenseConfig(protocol=get_protocol("proxyclip-voc20"), **STAGES[way])
    with (  # there are no files of these weights
        patch("models.networks.load_clip", lambda _: (made.clip, made.tokenizer)),
        patch("models.networks.load_sam2", lambda *_, **__: made.sam),
        patch("models.networks.build_backbone", backbone),
        patch("models.weights.load_loftup", lambda _: loftup),
    ):
        dense = Dense(Networks(preset, "cpu"), config)
        dense.networks.load(dense.config)
    dense.encode_text(words.query_words)
    found: dict[str, float] = {}

    def work() -> None:
        found.update(dense.dense(image, words).timings)

    with torch.no_grad():
        row = above_loaded(work)
    rows: list[Row] = [
        {"section": "stages", "name": way, "stage": stage, "seconds": seconds}
        for stage, seconds in found.items()
    ]
    return [*rows, {"section": "memory", "name": "whole dense step", "way": way, **row}]


MEASUREMENTS: Measurements = {
    **MACHINE,
    **{
        f"attention/{method}{scale}": (attention, (method, scale))
        for method in ("proxy", "corr")
        for scale in (1, 2, 4)
    },
    **{
        f"memory/{method}{scale}/{way}": (memory, (method, scale, way))
        for method in ("proxy", "corr")
        for scale in (4, 8)
        for way in ("plain", "strips")
        if (scale, way) != (8, "plain")
    },
    **{f"stages/{way}": (stages, (way,)) for way in STAGES},
}


def main(argv: list[str] | None = None) -> int:
    title = "Speed and memory of dense methods with a second network"
    return run_program(title, __doc__, MEASUREMENTS, _COLUMNS, argv)


if __name__ == "__main__":
    raise SystemExit(main())
