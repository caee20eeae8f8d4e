"""One picture segmented without and with LoftUp, or by any two upsamplers, side by side.

    python compare_loftup_results.py
    python compare_loftup_results.py --image photo.jpg --vocabulary person "sofa,couch" \\
        --output comparison.png --save-json comparison.json
    python compare_loftup_results.py --upsamplers jbu loftup

Shows both results and where they differ, prints what each needed and found, and writes the numbers
and all masks as JSON. Without --image the bundled scene is segmented by the small models shipped
with the repository. For one result alone: clip_guided_segmentation_loftup.py.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from models.upsamplers.registry import UPSAMPLERS
from pipeline.app.ignored import LOFTUP, SETTINGS, Needs, refuse_ignored
from pipeline.app.options import (
    Parser,
    add_config_options,
    add_model_options,
    add_picture_options,
    add_weights_options,
    check_outputs,
    choose_preset,
    config_from_args,
    given_weights,
    own_or_named,
    read_vocabulary,
    run_main,
    say_limits,
)
from pipeline.config import PipelineConfig

if TYPE_CHECKING:
    from models.upsamplers.base import Upsampler

IGNORED = (
    *SETTINGS,
    Needs(LOFTUP, lambda args: "loftup" in args.upsamplers, "loftup among --upsamplers"),
)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add_model_options(parser)
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("comparison.png"),
        help="the picture (default: %(default)s)",
    )
    parser.add_argument(
        "--save-json",
        type=Path,
        help="numbers, masks (COCO RLE), settings (default: the picture's name with .json)",
    )
    parser.add_argument(
        "--upsamplers",
        nargs=2,
        metavar="NAME",
        default=["bilinear", "loftup"],
        help=f"the two: {', '.join(UPSAMPLERS)}, or your own, path/to/file.py:function "
        "(default: bilinear loftup)",
    )
    add_weights_options(parser)
    add_picture_options(parser)
    add_config_options(parser, PipelineConfig)
    return parser.parse_all(argv)


def main(argv: list[str] | None = None) -> int:
    return run_main(_run, parse(argv))


def _run(args: argparse.Namespace) -> int:
    from models.images import load_image
    from pipeline.app.comparison_picture import save_comparison
    from pipeline.drawing.picture import picture_format
    from pipeline.files.atomic import write_each

    # All bad input is refused before the long work.
    picture_format(args.output)
    json_path = args.save_json or args.output.with_suffix(".json")
    check_outputs({"--output": args.output, "--save-json": json_path}, args.image)
    config = config_from_args(args)
    refuse_ignored(args, IGNORED)
    vocabulary = read_vocabulary(args)
    image = load_image(args.image)
    upsamplers = _upsamplers(args)
    for upsampler in upsamplers:  # refuses unknown ones
        config.changed(upsampler=upsampler, upsampled=args.upsampled)
    say_limits(args, image)

    from pipeline.app.compare import compare
    from pipeline.segmenter import Segmenter

    segmenter = Segmenter.from_preset(
        choose_preset(args),
        upsampler=upsamplers[0],
        device=args.device,
        config=config,
        weights=given_weights(args, args.upsamplers),
        model_cfg=args.model_cfg,
        checkpoint=args.checkpoint,
    )
    comparison = compare(
        segmenter,
        image,
        vocabulary,
        upsamplers=upsamplers,
        upsampled=args.upsampled,
        image_path=str(args.image),
    )
    marks = {"tags": args.tags, "points": args.points}
    write_each(
        [
            (args.output, lambda: save_comparison(args.output, image, comparison, **marks)),
            (json_path, lambda: comparison.save_json(json_path)),
        ]
    )
    print(comparison.table())
    print(f"\n-> {args.output}, {json_path}")
    return 0


def _upsamplers(args: argparse.Namespace) -> tuple[str | Upsampler, str | Upsampler]:
    """--upsamplers.

    Raises:
        ValueError: one name twice, or weights of a network that is not among them.
    """
    first, second = args.upsamplers
    if first == second:
        raise ValueError(f"--upsamplers {first} {second}: give two different ones")
    given_weights(args, args.upsamplers)
    return own_or_named(first), own_or_named(second)


if __name__ == "__main__":
    sys.exit(main())
