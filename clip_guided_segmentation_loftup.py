"""Masks for everything you name in a picture.

    python clip_guided_segmentation_loftup.py --use-loftup
    python clip_guided_segmentation_loftup.py --image photo.jpg --vocabulary person "sofa,couch" \\
        --use-loftup --output result.png --save-json result.json

CLIP scores every pixel against the words (SCLIP, upsampled by LoftUp with --use-loftup, or see
--upsampler), confident regions become clicks, and SAM 2 turns the clicks into masks. Without
--image the bundled scene is segmented by the small models shipped with the repository.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pipeline.exports.options import add_export_options, check_export_options
from pipeline.options import (
    Parser,
    add_model_options,
    add_pipeline_options,
    add_upsampler_options,
    check_outputs,
    choose_preset,
    choose_upsampler,
    config_from_args,
    read_vocabulary,
    run_main,
)


def __getattr__(name: str) -> object:
    if name == "segment_with_guided_prompts":  # users import it from here
        from pipeline.guided import segment_with_guided_prompts

        return segment_with_guided_prompts
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add_model_options(parser)
    add_upsampler_options(parser)
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("clip_guided_segments.png"),
        help="the picture (default: %(default)s)",
    )
    parser.add_argument("--save-json", type=Path, help="masks (COCO RLE), scores, points, settings")
    parser.add_argument("--save-label-map", type=Path, help="class of every pixel, palette PNG")
    add_export_options(parser)
    add_pipeline_options(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    return run_main(_run, parse(argv))


def _run(args: argparse.Namespace) -> int:
    from models.images import load_image
    from pipeline.visualize import picture_format, save_picture

    # All bad input is refused before the long work.
    picture_format(args.output)
    outputs = {
        "--output": args.output,
        "--save-json": args.save_json,
        "--save-label-map": args.save_label_map,
    }
    check_outputs(outputs, args.image)
    check_export_options(args)
    if args.save_label_map and args.save_label_map.suffix.lower() != ".png":
        raise ValueError(f"--save-label-map {args.save_label_map}: its name must end in .png")
    args.upsampler = choose_upsampler(args)
    vocabulary = read_vocabulary(args)
    image = load_image(args.image)
    config = config_from_args(args)

    from pipeline.exports.export import Export
    from pipeline.exports.heatmaps import save_heatmaps
    from pipeline.segmenter import Segmenter

    segmenter = Segmenter.from_preset(
        choose_preset(args),
        device=args.device,
        config=config,
        loftup=args.loftup_model,
        anyup=args.anyup_model,
        model_cfg=args.model_cfg,
        checkpoint=args.checkpoint,
    )
    encoded = segmenter.segmentor.encode(image)
    dense = segmenter.segmentor.dense(encoded, vocabulary)
    result = segmenter.masks(encoded, dense, vocabulary, image_path=str(args.image))
    save_picture(args.output, image, result)
    written = [args.output]
    for path, save in (
        (args.save_json, result.save_json),
        (args.save_label_map, result.save_label_map),
    ):
        if path is not None:
            save(path)
            written.append(path)
    if args.export:
        with Export(args.export_dir, args.export, result.class_names) as export:
            export.add(result)
        written += export.paths
    if args.save_heatmaps:
        written.append(args.save_heatmaps / args.image.stem)
        save_heatmaps(written[-1], dense.probs, result.class_names)
    for index in range(len(result)):
        x, y = result.points[index][0]
        print(
            f"{result.class_name(index):<16} score {result.scores[index]:.2f}  "
            f"area {int(result.masks[index].sum()):>7} px  point ({x:.0f}, {y:.0f})  "
            f"from {result.sources[index]}"
        )
    if not len(result):
        print(f"nothing found: no region of {args.min_region_size} px reaches --min-confidence")
    print(
        f"{len(result)} masks in {sum(result.timings.values()):.1f} s -> "
        f"{', '.join(map(str, written))}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
