"""What does upsampling buy? Arms of the pipeline on PASCAL VOC, or on rendered scenes.

    python benchmarks/voc.py                       # offline: rendered scenes, shipped tiny models
    python benchmarks/voc.py --root VOCdevkit/VOC2012 --protocol sclip-voc21 \\
        --arms bilinear loftup loftup+sam2
    torchrun --nproc-per-node=2 benchmarks/voc.py  # the same results from several processes

An arm is an upsampler and modifiers joined by "+", see below. Predictions are written first and
scored from their files: an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
if not __package__:  # run as a file: Python looks for packages beside it
    sys.path.insert(0, str(ROOT))

from models.protocols import PROTOCOLS, Protocol
from pipeline.app.options import (
    Parser,
    add_config_options,
    add_weights_options,
    config_from_args,
    given_weights,
    run_main,
)
from pipeline.config import PipelineConfig
from pipeline.evaluation.arms import meanings

if TYPE_CHECKING:
    import torch

    from pipeline.evaluation.arms import Arm
    from pipeline.evaluation.runner import ArmRunner

SCENES, SCENES_SEED = 200, 7
ARMS = ("none", "bilinear", "probability", "loftup", "mean", "bilinear+sam2", "loftup+sam2",
        "mean+sam2", "oracle-points")  # fmt: skip
# Settings of the masks; the rest of the pipeline is said by the arms.
FIELDS = ("min_confidence", "min_region_size", "iou_threshold", "points_per_region", "min_score",
          "min_agreement")  # fmt: skip


def parse(argv: list[str] | None) -> argparse.Namespace:
    names = ", ".join(name for name, protocol in PROTOCOLS.items() if protocol.class_names)
    parser = Parser(__doc__)
    parser.epilog = "parts of an arm's name:\n" + "\n".join(
        f"  {part:22} {meaning}" for part, meaning in meanings().items()
    )
    add = parser.add_argument
    add("--root", type=Path, help="VOC2012's folder (default: rendered scenes of its layout)")
    add("--split", default="val", help="list in ImageSets/Segmentation, or a file of ids (val)")
    add("--limit", type=int, help="only the first images of the split")
    add("--protocol", help=f"{names} (default: sclip-voc21; rendered-voc without --root)")
    add("--preset", help="trained models (default: vit-b16; tiny without --root)")
    add("--arms", nargs="+", metavar="ARM", default=list(ARMS), help=f"(default: {' '.join(ARMS)})")
    add("--baseline", metavar="ARM", help="arm to compare with (default: bilinear, or the first)")
    add("--output", type=Path, help="results folder (default: outputs/voc/PRESET_PROTOCOL_SPLIT)")
    add("--overwrite", action="store_true", help="make all predictions anew")
    add(
        "--score-only",
        action="store_true",
        help="score the predictions that are there, whatever they were made with",
    )
    add("--resamples", type=int, default=2000, help="of the bootstrap (default: %(default)s)")
    add_weights_options(parser)
    add("--checkpoint", type=Path, help="SAM 2 weights (default: the preset's)")
    add("--model-cfg", help="SAM 2 configuration (default: the preset's)")
    add("--device", help="cuda, mps or cpu (default: the best available)")
    add("--threads", type=int, default=1,
        help="of each process on a CPU; results may differ in the last bits between numbers of "
        "threads, so use more processes instead (default: %(default)s)")  # fmt: skip
    add("--verbose", action="store_true", help="log more; tracebacks of errors")
    add_config_options(parser, PipelineConfig, FIELDS)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    return run_main(_run, parse(argv))


def _run(args: argparse.Namespace) -> int:
    import cv2
    import torch

    from pipeline.datasets import open_dataset
    from pipeline.datasets.voc import LABELS
    from pipeline.evaluation.arms import parse_arms
    from pipeline.evaluation.predict import predict
    from pipeline.evaluation.ranks import join_ranks
    from pipeline.evaluation.report.outputs import write_outputs
    from pipeline.evaluation.score import scoring_protocol

    # All bad input is refused before the long work.
    for option in ("threads", "resamples"):
        if getattr(args, option) < 1:
            raise ValueError(f"--{option} must be at least 1, got {getattr(args, option)}")
    if args.score_only and args.overwrite:
        raise ValueError("--overwrite makes predictions and --score-only none; give one of them")
    arms = parse_arms(args.arms)
    args.arms = [arm.name for arm in arms]
    baseline = args.baseline or ("bilinear" if "bilinear" in args.arms else args.arms[0])
    if baseline not in args.arms:
        raise ValueError(f"--baseline {baseline!r} is none of the arms {', '.join(args.arms)}")
    rendered = args.root is None
    protocol = scoring_protocol(
        args.protocol or ("rendered-voc" if rendered else "sclip-voc21"), LABELS
    )
    preset = args.preset or ("tiny" if rendered else "vit-b16")
    config = config_from_args(args)
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    with join_ranks(args.device) as ranks:
        root = args.root
        if rendered:
            root = ROOT / "outputs" / "cache" / f"rendered_voc_{SCENES}_{SCENES_SEED}"
            if ranks.rank == 0:
                from pipeline.datasets.rendered_voc import render_voc

                render_voc(root, images=SCENES, seed=SCENES_SEED)
            ranks.barrier()
        dataset = open_dataset("voc", root, args.split, args.limit)
        output = args.output
        if output is None:
            name = f"{preset}_{protocol.name}_{Path(args.split).stem}"
            output = ROOT / "outputs" / "voc" / name
        failed = []
        if not args.score_only:
            runner = _load(args, preset, arms, protocol, config, ranks.device)
            folder = output / "predictions"
            failed = predict(dataset, runner, arms, folder, ranks, overwrite=args.overwrite)
        if ranks.rank:
            return 0
    data = write_outputs(
        dataset,
        args.arms,
        output,
        failed,
        baseline=baseline,
        resamples=args.resamples,
        settings={
            "root": str(root.relative_to(ROOT) if root.is_relative_to(ROOT) else root),
            "split": args.split,
            "limit": args.limit,
        },
        processes=None if args.score_only else ranks.world,
    )
    print((output / "report.md").read_text(encoding="utf-8"))
    print(f"wrote {output}")
    failures = data["images"]["failed"]
    for failure in failures:
        print(f"not scored: {failure['id']}: {failure['error']}", file=sys.stderr)
    return 1 if failures else 0


def _load(
    args: argparse.Namespace,
    preset: str,
    arms: Sequence[Arm],
    protocol: Protocol,
    config: PipelineConfig,
    device: torch.device,
) -> ArmRunner:
    """The networks that the arms need, and no others."""
    from models.dense import Dense
    from models.networks import Networks
    from pipeline.datasets.voc import LABELS
    from pipeline.evaluation.runner import ArmRunner

    used = {str(arm.changes.get("upsampler")) for arm in arms}
    networks = Networks(
        preset,
        device,
        weights=given_weights(args, used),
        model_cfg=args.model_cfg,
        checkpoint=args.checkpoint,
    )
    runner = ArmRunner(Dense(networks), protocol, LABELS, config=config)
    runner.load(arms)
    return runner


if __name__ == "__main__":
    raise SystemExit(main())
