"""What do methods and upsamplers score? Arms of the pipeline on the usual data sets.

    python benchmarks/segmentation.py --dataset ade20k --root data/ade/ADEChallengeData2016 \\
        --arms bilinear guided loftup
    python benchmarks/segmentation.py --dataset context59    # offline: rendered scenes, tiny models
    python benchmarks/segmentation.py --suite published --root data   # every method and data set
    torchrun --nproc-per-node=2 benchmarks/segmentation.py …  # the same results, several processes

An arm is an upsampler and modifiers joined by "+", see below. Predictions are written first and
scored from their files: an interrupted run goes on where it stopped. The suite runs each published
method under its own settings with each upsampler, as far as data and weights are there, and prints
one table.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
if not __package__:  # run as a file: Python looks for packages beside it
    sys.path.insert(0, str(ROOT))

from models import published
from models.dense import DenseConfig
from models.presets import get_preset
from models.protocols import PROTOCOLS, get_protocol, listed
from pipeline.app.ignored import refuse_proxy_weights
from pipeline.app.options import (
    Parser,
    add_config_options,
    add_weights_options,
    config_from_args,
    given_weights,
    run_main,
)
from pipeline.config import PipelineConfig
from pipeline.datasets import DATASETS, find_root, open_dataset, render_dataset
from pipeline.evaluation.arms import meanings

if TYPE_CHECKING:
    from models.networks import Networks
    from pipeline.datasets.base import Dataset
    from pipeline.evaluation.arms import Arm
    from pipeline.evaluation.ranks import Ranks

SCENES, SCENES_SEED = 200, 7
ARMS = ("none", "bilinear", "probability", "loftup", "mean", "bilinear+sam2", "loftup+sam2",
        "mean+sam2", "oracle-points")  # fmt: skip
UPSAMPLERS = ("bilinear", "guided", "loftup")  # of the suite
# Settings of the masks; the rest of the pipeline is said by the arms.
FIELDS = ("min_confidence", "min_region_size", "iou_threshold", "points_per_region", "min_score",
          "min_agreement")  # fmt: skip


def build_parser(description: str | None) -> Parser:
    """All options but those that say which data set."""
    parser = Parser(description)
    parser.epilog = "parts of an arm's name:\n" + "\n".join(
        f"  {part:22} {meaning}" for part, meaning in meanings().items()
    )
    add = parser.add_argument
    add("--limit", type=int, help="only the first images of the split")
    add("--preset", help="trained models (default: vit-b16; tiny without --root)")
    add("--arms", nargs="+", metavar="ARM", help=f"(default: {' '.join(ARMS)})")
    add("--baseline", metavar="ARM", help="arm to compare with (default: bilinear, or the first)")
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
    return parser


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = build_parser(__doc__)
    rows = "; ".join(f"{name}: {row.meaning}" for name, row in DATASETS.items())
    names = listed(name for name, protocol in PROTOCOLS.items() if protocol.class_names)
    add = parser.add_argument
    add("--dataset", metavar="NAME", help=rows)
    add("--suite", metavar="NAME", help="published: all published methods on all data sets")
    add("--root", type=Path, help="the data set's folder; of --suite, the folder that holds all of "
        "them (default: rendered scenes of the same layout)")  # fmt: skip
    add("--split", help="one of the data set's lists, or a file of ids (default: its val)")
    add("--protocol", help=f"{names} (default: sclip-DATASET; rendered-DATASET without --root)")
    add("--output", type=Path,
        help="results folder (default: outputs/segmentation/DATASET_PRESET_PROTOCOL_SPLIT, "
        "outputs/segmentation/SUITE_PRESET)")  # fmt: skip
    add("--scenes", type=int, default=SCENES, help="rendered without --root (%(default)s)")
    add("--methods", nargs="+", metavar="METHOD",
        help=f"of --suite (default: {' '.join(published.METHODS)})")  # fmt: skip
    add("--datasets", nargs="+", metavar="NAME", help="of --suite (default: all)")
    add("--upsamplers", nargs="+", metavar="NAME",
        help=f"of --suite (default: {' '.join(UPSAMPLERS)})")  # fmt: skip
    args = parser.parse_args(argv)
    if bool(args.dataset) == bool(args.suite):
        parser.error(f"give --dataset ({', '.join(DATASETS)}) or --suite published")
    if args.suite not in (None, "published"):
        parser.error(f"unknown suite {args.suite!r}; valid: published")
    one, all_ = ("split", "protocol", "arms", "baseline"), ("methods", "datasets", "upsamplers")
    for option in one if args.suite else all_:
        if getattr(args, option):
            parser.error(
                f"--{option} is not for --suite, whose methods have their own"
                if args.suite
                else f"--{option} is for --suite"
            )
    if args.suite and args.score_only:
        parser.error("--score-only is not for --suite, which goes on where it stopped")
    return args


def main(argv: list[str] | None = None) -> int:
    return run_main(run, parse(argv))


def run(args: argparse.Namespace) -> int:
    """What the options say, of one data set or a suite."""
    import cv2
    import torch

    # All bad input is refused before the long work.
    for option in ("threads", "resamples", "scenes"):
        if getattr(args, option) < 1:
            raise ValueError(f"--{option} must be at least 1, got {getattr(args, option)}")
    if args.score_only and args.overwrite:
        raise ValueError("--overwrite makes predictions and --score-only none; give one of them")
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    args.preset = args.preset or ("tiny" if args.root is None else "vit-b16")
    return _run_suite(args) if args.suite else _run_one(args)


def _run_one(args: argparse.Namespace) -> int:
    from models.dense import Dense
    from pipeline.evaluation.arms import parse_arms
    from pipeline.evaluation.predict import predict
    from pipeline.evaluation.ranks import join_ranks
    from pipeline.evaluation.report.outputs import write_outputs
    from pipeline.evaluation.runner import ArmRunner
    from pipeline.evaluation.score import scoring_protocol

    if args.dataset not in DATASETS:
        raise ValueError(f"unknown data set {args.dataset!r}; valid: {', '.join(DATASETS)}")
    row = DATASETS[args.dataset]
    if args.root is None and not row.render:
        raise ValueError(f"{args.dataset} needs --root: no scenes are rendered in its place")
    if not (args.protocol or row.protocol):
        raise ValueError(f"{args.dataset} needs --protocol: nothing else says its words")
    arms = parse_arms(args.arms or ARMS)
    weights = _weights(args, arms)
    names = [arm.name for arm in arms]
    baseline = args.baseline or ("bilinear" if "bilinear" in names else names[0])
    if baseline not in names:
        raise ValueError(f"--baseline {baseline!r} is none of the arms {', '.join(names)}")
    usual = row.rendered_protocol if args.root is None else row.protocol
    protocol, split = get_protocol(args.protocol or usual), args.split or row.split
    config = config_from_args(args)
    with join_ranks(args.device) as ranks:
        root = args.root or rendered_root(args.dataset, args.scenes, ranks)
        dataset = open_dataset(args.dataset, root, split, args.limit)
        protocol = scoring_protocol(protocol, dataset.labels)
        output = args.output or _output(args, f"{protocol.name}_{Path(split).stem}")
        failed = []
        if not args.score_only:
            networks = _networks(args, weights, ranks)
            runner = ArmRunner(
                Dense(networks), protocol, dataset.labels, ignore=dataset.ignore, config=config
            )
            runner.load(arms)
            folder = output / "predictions"
            failed = predict(dataset, runner, arms, folder, ranks, overwrite=args.overwrite)
        if ranks.rank:
            return 0
    data = write_outputs(
        dataset,
        names,
        output,
        failed,
        baseline=baseline,
        resamples=args.resamples,
        settings=_settings(args, args.dataset, root, split),
        processes=None if args.score_only else ranks.world,
    )
    print((output / "report.md").read_text(encoding="utf-8"))
    print(f"wrote {output}")
    failures = data["images"]["failed"]
    for failure in failures:
        print(f"not scored: {failure['id']}: {failure['error']}", file=sys.stderr)
    return 1 if failures else 0


def _run_suite(args: argparse.Namespace) -> int:
    from pipeline.evaluation.arms import parse_arm
    from pipeline.evaluation.ranks import join_ranks
    from pipeline.evaluation.report.suite_table import write_table
    from pipeline.evaluation.suite import plan, run_suite

    upsamplers = args.upsamplers or list(UPSAMPLERS)
    jobs = plan(
        args.methods or list(published.METHODS), args.datasets or list(published.NAMES), upsamplers
    )
    arms = [parse_arm(arm) for job in jobs for arm in job.arms.values()]
    weights = _weights(args, arms)
    is_rendered = args.root is None
    if not is_rendered and not args.root.is_dir():
        raise FileNotFoundError(f"folder of data sets not found: '{args.root}'; check the path")
    output = args.output or _output(args, args.preset)
    with join_ranks(args.device) as ranks:
        roots: dict[str, Path] = {}
        if is_rendered:
            for name in dict.fromkeys(job.dataset for job in jobs):
                roots[name] = rendered_root(name, args.scenes, ranks)

        def open_data(name: str) -> tuple[Dataset, dict]:
            root = roots.get(name) or find_root(name, args.root)
            dataset = open_dataset(name, root, None, args.limit)
            return dataset, _settings(args, name, root, dataset.split)

        cells = run_suite(
            jobs,
            open_data,
            _networks(args, weights, ranks),
            ranks,
            output,
            config=config_from_args(args),
            is_rendered=is_rendered,
            resamples=args.resamples,
            overwrite=args.overwrite,
        )
        if ranks.rank:
            return 0
    print(write_table(cells, output, is_rendered=is_rendered))
    print(f"wrote {output}")
    for cell in cells:
        for failure in cell.failed:
            print(f"not scored: {cell.dataset}: {failure['id']}: {failure['error']}",
                  file=sys.stderr)  # fmt: skip
    if not any(cell.miou is not None for cell in cells):
        raise ValueError(f"nothing could be measured; first: {cells[0].why}")
    return 1 if any(cell.failed for cell in cells) else 0


def rendered_root(name: str, scenes: int, ranks: Ranks | None = None) -> Path:
    """The folder of rendered scenes that stand in for a data set; made if missing."""
    kind = DATASETS[name].render.rpartition(":render_")[2]  # two data sets may share scenes
    root = ROOT / "outputs" / "cache" / f"rendered_{kind}_{scenes}_{SCENES_SEED}"
    if ranks is None or ranks.rank == 0:
        render_dataset(name, root, images=scenes, seed=SCENES_SEED)
    if ranks is not None:
        ranks.barrier()
    return root


def _output(args: argparse.Namespace, end: str) -> Path:
    if args.suite:
        return ROOT / "outputs" / "segmentation" / f"{args.suite}_{end}"
    return ROOT / "outputs" / "segmentation" / f"{args.dataset}_{args.preset}_{end}"


def _settings(args: argparse.Namespace, dataset: str, root: Path, split: str) -> dict:
    root = root.relative_to(ROOT) if root.is_relative_to(ROOT) else root
    return {"dataset": dataset, "root": str(root), "split": split, "limit": args.limit}


def _weights(args: argparse.Namespace, arms: Sequence[Arm]) -> dict[str, str | None]:
    """Of upsamplers and second networks, as the options say; ValueError where no arm uses them."""
    preset = get_preset(args.preset)
    changes = [arm.dense_changes for arm in arms if not arm.oracle]
    refuse_proxy_weights(args, (DenseConfig(**each).resolved(preset) for each in changes))
    return given_weights(args, {str(each.get("upsampler")) for each in changes})


def _networks(
    args: argparse.Namespace, weights: Mapping[str, str | None], ranks: Ranks
) -> Networks:
    from models.networks import Networks

    return Networks(
        args.preset,
        ranks.device,
        weights=weights,
        model_cfg=args.model_cfg,
        checkpoint=args.checkpoint,
    )


if __name__ == "__main__":
    raise SystemExit(main())
