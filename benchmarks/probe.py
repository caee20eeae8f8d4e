"""Linear probes on frozen features: what does an upsampler give, and does it stay in their space?

    python benchmarks/probe.py --dataset folder --root CAMVID --train train --test test \\
        --backbones timm:tf_efficientnet_lite0=FILE dinov2_vits14=FILE \\
        --upsamplers none bilinear jbu guided loftup=FILE my.py:function
    python benchmarks/probe.py --dataset voc21 --root VOCdevkit/VOC2012 --crop 224 \\
        --backbones vit-b16 --upsamplers none bilinear loftup_clip

The protocol is LoftUp's and FeatUp's: a 1×1 convolution, batches of 8 images, NAdam at 1e-4, 10
epochs, on the middle square of 224 pixels (--crop 224) or on whole images. Two probes are scored:
"own" is trained on the upsampler's output, "low-res" on the features before upsampling, every pixel
with those of its patch. An upsampler that leaves the features' space fails the second, as it
would fail a text vector. Differences are to bilinear by the same probe, their intervals 95 %, of a
paired bootstrap over the test images.

Features, pixels, probes and scores are kept in --output: a run that is stopped goes on there. It
writes report.md and results.json; the last line printed is the JSON.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[1]
if not __package__:  # run as a file: Python looks for packages beside it
    sys.path.insert(0, str(ROOT))

from models.upsamplers.registry import UPSAMPLERS
from pipeline.app.options import Parser, run_main
from pipeline.datasets import DATASETS

if TYPE_CHECKING:
    from models.backbones.base import Backbone
    from pipeline.evaluation.probe.run import NamedUpsampler

BASELINE = "bilinear"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    sets = "; ".join(f"{name}: {row.meaning}" for name, row in DATASETS.items())
    add("--dataset", choices=DATASETS, default="folder", help=sets)
    add("--root", type=Path, required=True, help="the data set's folder")
    add("--train", default="train", metavar="SPLIT", help="(default: %(default)s)")
    add("--test", default="val", metavar="SPLIT", help="(default: %(default)s)")
    add("--limit", type=int, help="only the first images of both lists")
    add("--backbones", nargs="+", metavar="SPEC[=FILE]", required=True,
        help="networks, see models/backbones/build.py, each with its weights file")  # fmt: skip
    add("--upsamplers", nargs="+", metavar="NAME[=FILE]", default=["none", "bilinear"],
        help=f"{', '.join(UPSAMPLERS)}, each with its weights file; or path/to/file.py:function; "
        f"{BASELINE} is always there")  # fmt: skip
    add("--crop", type=int, metavar="SIDE", help="middle square of SIDE px (default: whole images)")
    add("--epochs", type=int, default=10, help="(default: %(default)s)")
    add("--lr", type=float, default=1e-4, help="of NAdam (default: %(default)s)")
    add("--batch", type=int, default=8, help="images of a step (default: %(default)s)")
    add("--pixels", type=int, default=4096,
        help="of each training image that count (default: %(default)s; papers: all)")  # fmt: skip
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default: 0 1 2)")
    add("--random-weights", action="store_true", help="of the backbones, for a try")
    add("--output", type=Path, default=ROOT / "outputs" / "probe", help="(default: outputs/probe)")
    add("--device", help="cuda, mps or cpu (default: the best available)")
    add("--threads", type=int, default=1, help="on a CPU (default: %(default)s)")
    add("--verbose", action="store_true", help="log more; tracebacks of errors")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    args.command = shlex.join(["python", "benchmarks/probe.py", *(argv or sys.argv[1:])])
    return run_main(_run, args)


def _run(args: argparse.Namespace) -> int:
    import torch

    from benchmarks.measuring import environment
    from benchmarks.probe_report import write_report
    from models.device import pick_device
    from models.protocols import get_protocol
    from pipeline.datasets import open_dataset
    from pipeline.evaluation.probe.run import PROBES, ProbeRun
    from pipeline.evaluation.probe.scores import summarize
    from pipeline.evaluation.probe.training import ProbeConfig
    from pipeline.evaluation.probe.views import View

    if args.crop is not None and args.crop < 1:
        raise ValueError(f"--crop must be at least 1 pixel, got {args.crop}")
    if args.threads < 1:
        raise ValueError(f"--threads must be at least 1, got {args.threads}")
    torch.set_num_threads(args.threads)
    device = pick_device(args.device)
    config = ProbeConfig(epochs=args.epochs, lr=args.lr, batch=args.batch, pixels=args.pixels)
    training = open_dataset(args.dataset, args.root, args.train, args.limit)
    test = open_dataset(args.dataset, args.root, args.test, args.limit)
    protocol = DATASETS[args.dataset].protocol
    background = not protocol or bool(get_protocol(protocol).background)
    view = View(args.crop, background=background)
    names = list(dict.fromkeys([BASELINE, *args.upsamplers]))
    results: dict[str, Any] = {}
    for spec in args.backbones:
        backbone = _backbone(spec, args.random_weights, device)
        upsamplers = [_upsampler(name, backbone, device) for name in names]
        folder = args.output / _file_name(backbone.name)
        run = ProbeRun(folder, backbone, training, test, view, config, args.seeds)
        found = {upsampler.name: run.score(upsampler) for upsampler in upsamplers}
        results[backbone.name] = {"weights": Path(backbone.weights).name} | {
            probe: summarize({name: found[name][probe] for name in found}, BASELINE)
            for probe in PROBES
        }
    about = {
        "training": f"{args.train}, {len(training.ids)} images",
        "test": f"{args.test}, {len(test.ids)} images",
        "labels": list(test.labels),
        "view": f"middle {args.crop} px" if args.crop else "whole images",
        "probe": f"{config.epochs} epochs, NAdam {config.lr:g}, batches of {config.batch}, "
        f"{config.pixels} pixels of an image, seeds {', '.join(map(str, args.seeds))}",
        **environment(args.threads),
    }
    data = {"command": args.command, "about": about, "backbones": results}
    write_report(args.output, data)
    print((args.output / "report.md").read_text(encoding="utf-8"))
    print(json.dumps(data, ensure_ascii=False))
    return 0


def _backbone(text: str, random_weights: bool, device: Any) -> Backbone:
    from models.backbones.build import build_backbone

    spec, _, file = text.partition("=")
    return build_backbone(
        spec,
        checkpoint=Path(file) if file else None,
        random_weights=random_weights,
        device=device,
    )


def _upsampler(text: str, backbone: Backbone, device: Any) -> NamedUpsampler:
    from models.upsamplers.registry import load_own, load_upsampler
    from pipeline.evaluation.probe.run import NamedUpsampler

    if re.search(r"\.py:\w+$", text):
        name, own = load_own(text)
        return NamedUpsampler(name=name, upsampler=own)
    name, _, file = text.partition("=")
    if file and not Path(file).is_file():
        raise FileNotFoundError(f"weights file '{file}' of upsampler {name} not found")
    upsampler = load_upsampler(name, file or None, backbone=backbone, device=device)
    return NamedUpsampler(
        name=f"{name} {Path(file).stem}" if file else name,
        upsampler=upsampler,
        weights=Path(file) if file else None,
    )


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.@-]+", "_", name).strip("_")


if __name__ == "__main__":
    raise SystemExit(main())
