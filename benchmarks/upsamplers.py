"""The other upsamplers against their plain computations: measurements for `benchmarks/speed.py`.

    python benchmarks/speed.py --only "*/jbu/*" "*/guided/*" "*/anyup/*"

Joint bilateral and guided filter enlarge the scores of 21 words, as the pipeline has them do; AnyUp
(random weights, its released size) enlarges 512 channels, and in the memory rows the scores of 21
words by the weights of 512 channels.

Shapes: B batch, V channels, h w low-resolution grid, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from benchmarks.measuring import (
    Row,
    measure,
    peak_mib,
    resident_mib,
)

if TYPE_CHECKING:
    from torch import Tensor

PATCH, CHANNELS, WORDS = 16, 512, 21
NAMES = ("jbu", "guided", "anyup")


def speed(name: str, size: int) -> list[Row]:
    """Plain and ours in one process on the same inputs, outputs compared."""
    import torch
    from torch.nn import functional as F

    rows, outputs = [], {}
    with torch.no_grad():
        for way, work in _ways(name, size).items():
            if way == "scores":  # nothing to compare with
                continue
            rows.append({"section": "speed", "name": f"{name}/{size}", "way": way, **measure(work)})
            outputs[way] = work().float()
    for row in rows:
        output, plain = outputs[row["way"]], outputs["plain"]
        row["times_faster"] = rows[0]["median_s"] / row["median_s"]
        row["times_less_cpu"] = rows[0]["cpu_s"] / row["cpu_s"]
        row["max_error"] = float((output - plain).abs().max())
        cosines = F.cosine_similarity(output.double(), plain.double(), dim=1)
        row["min_cosine"] = float(cosines.min())
    return rows


def memory(name: str, way: str, size: int) -> list[Row]:
    """Peak above the loaded model, MiB, of this process: run it in a fresh one."""
    import torch

    with torch.no_grad():
        _ways(name, 32)[way]()  # the libraries come into memory
        work = _ways(name, size)[way]
        loaded = resident_mib()
        work()
    grid = size // PATCH
    return [{"section": "memory", "name": f"{name}, {way}, {grid}×{grid} -> {size}×{size}",
             "loaded_mib": loaded, "above_loaded_mib": peak_mib() - loaded}]  # fmt: skip


def _ways(name: str, size: int) -> dict[str, Callable[[], Tensor]]:
    """Name of a way → what runs it, all on the same inputs."""
    import torch
    from torch.nn import functional as F

    from benchmarks.plain.anyup import plain_anyup
    from models.anyup.network import AnyUp
    from models.upsamplers import load_upsampler
    from models.upsamplers.trained import AnyUpUpsampler

    torch.manual_seed(0)
    grid = size // PATCH
    guide = F.interpolate(torch.rand(1, 3, 32, 32), (size, size), mode="bilinear")
    scores = torch.randn(1, WORDS, grid, grid)
    if name != "anyup":
        plain = {"jbu": plain_joint_bilateral, "guided": plain_guided_filter}[name]
        upsampler = load_upsampler(name)
        return {
            "plain": lambda: plain(scores, guide),
            "float32": lambda: upsampler.upsample_values(scores, scores, guide, (size, size)),
        }
    anyup = AnyUp().eval().requires_grad_(False)
    features = torch.randn(1, CHANNELS, grid, grid)
    values = AnyUpUpsampler(anyup).upsample_values
    return {
        "plain": lambda: plain_anyup(anyup, guide, features),
        "float32": lambda: anyup(guide, features),
        "bfloat16": torch.autocast("cpu", torch.bfloat16)(lambda: anyup(guide, features)),
        "scores": lambda: values(scores, features, guide, (size, size)),
    }


def plain_joint_bilateral(values: Tensor, guide: Tensor) -> Tensor:
    """Kopf's formula for all pixels and cells at once, (B, V, h, w) -> (B, V, H, W)."""
    import torch
    from torch.nn import functional as F

    from models.upsamplers.joint_bilateral import RADIUS, SIGMA_COLOUR, SIGMA_SPACE

    sizes = tuple(zip(guide.shape[2:], values.shape[2:], strict=True))
    position = [(torch.arange(n) + 0.5) * cells / n - 0.5 for n, cells in sizes]
    offset = [
        p[:, None] - torch.arange(cells) for p, (_, cells) in zip(position, sizes, strict=True)
    ]
    near = [
        (p.round().clamp(0, cells - 1)[:, None] - torch.arange(cells)).abs() <= RADIUS
        for p, (_, cells) in zip(position, sizes, strict=True)
    ]
    space = offset[0][:, None, :, None] ** 2 + offset[1][:, None, :] ** 2  # (H, W, h, w)
    inside = near[0][:, None, :, None] & near[1][:, None, :]
    cells = F.adaptive_avg_pool2d(guide, values.shape[2:])
    colour = (guide[..., None, None] - cells[:, :, None, None]).square().sum(1)  # (B, H, W, h, w)
    weights = torch.exp(-space / (2 * SIGMA_SPACE**2) - colour / (2 * SIGMA_COLOUR**2)) * inside
    mixed = torch.einsum("byxij,bvij->bvyx", weights, values)
    return mixed / weights.sum((3, 4))[:, None]


def plain_guided_filter(values: Tensor, guide: Tensor) -> Tensor:
    """He's colour guided filter of the enlarged values, (B, V, h, w) -> (B, V, H, W)."""
    import torch
    from torch.nn import functional as F

    from models.upsamplers.guided_filter import EPS, REACH

    size = tuple(guide.shape[2:])
    radius = max(1, round(REACH * max(size[0] / values.shape[2], size[1] / values.shape[3])))

    def box(x: Tensor) -> Tensor:
        for kernel, padding in (((2 * radius + 1, 1), (radius, 0)), ((1, 2 * radius + 1),
                                                                     (0, radius))):  # fmt: skip
            x = F.avg_pool2d(x, kernel, 1, padding, count_include_pad=False)
        return x

    values = F.interpolate(values, size, mode="bilinear")
    mean, mean_guide = box(values), box(guide)
    squares = box((guide[:, :, None] * guide[:, None]).flatten(1, 2)).unflatten(1, (3, 3))
    covariance = squares - mean_guide[:, :, None] * mean_guide[:, None]  # (B, 3, 3, H, W)
    inverse = torch.linalg.inv(covariance.permute(0, 3, 4, 1, 2) + EPS * torch.eye(3))
    joint = box((values[:, :, None] * guide[:, None]).flatten(1, 2)).unflatten(1, (-1, 3))
    joint = joint - mean[:, :, None] * mean_guide[:, None]  # (B, V, 3, H, W)
    slope = torch.einsum("byxkl,bvlyx->bvkyx", inverse, joint)
    offset = mean - (slope * mean_guide[:, None]).sum(2)
    slope = box(slope.flatten(1, 2)).unflatten(1, (-1, 3))
    return (slope * guide[:, None]).sum(2) + box(offset)


# The plain AnyUp holds 0.15 GiB of attention at 224×224, 2.5 GiB at 448×448.
MEASUREMENTS: dict[str, tuple[Callable[..., list[Row]], tuple]] = {
    **{f"speed/{name}/224": (speed, (name, 224)) for name in NAMES},
    **{f"memory/{name}/plain/224": (memory, (name, "plain", 224)) for name in NAMES},
    **{
        f"memory/{name}/{way}/{size}": (memory, (name, way, size))
        for name, way in (("jbu", "float32"), ("guided", "float32"), ("anyup", "scores"))
        for size in (224, 1024, 2048)
    },
}
