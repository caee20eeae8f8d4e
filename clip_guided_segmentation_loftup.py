"""Masks for everything you name in a picture.

    python clip_guided_segmentation_loftup.py --use-loftup
    python clip_guided_segmentation_loftup.py --image photo.jpg --vocabulary person "sofa,couch" \\
        --use-loftup --output result.png --save-json result.json
    python clip_guided_segmentation_loftup.py --image photos --vocabulary @words.txt \\
        --use-loftup --output results

CLIP scores every pixel against the words (SCLIP, upsampled by LoftUp with --use-loftup, or see
--upsampler), confident regions become clicks, and SAM 2 turns the clicks into masks. Without
--image the bundled scene is segmented by the small models shipped with the repository. Of a folder,
or several images, each one's picture, JSON and label map go into the folder --output; the same
command goes on after an interruption.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.app.ignored import LOFTUP, SETTINGS, Needs, refuse_ignored
from pipeline.app.options import (
    Parser,
    add_config_options,
    add_model_options,
    add_picture_options,
    add_upsampler_options,
    check_outputs,
    choose_preset,
    choose_upsampler,
    config_from_args,
    given_weights,
    read_vocabulary,
    run_main,
    say_limits,
)
from pipeline.config import PipelineConfig
from pipeline.exports.options import add_export_options, check_export_options
from pipeline.files.image_files import find_images, is_several, mark_folder

if TYPE_CHECKING:
    from pipeline.app.folder import Outcome
    from pipeline.exports.export import Export
    from pipeline.result import Segmentation
    from pipeline.segmenter import Segmenter


IGNORED = (
    *SETTINGS,
    Needs(LOFTUP, lambda args: args.use_loftup or args.upsampler == "loftup", "--use-loftup"),
    Needs(("overwrite",), lambda args: isinstance(args.image, list), "several images, or a folder"),
)


def __getattr__(name: str) -> object:
    if name == "segment_with_guided_prompts":  # users import it from here
        from pipeline.sam2_prompting import segment_with_guided_prompts

        return segment_with_guided_prompts
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add_model_options(parser, several=True)
    add_upsampler_options(parser)
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("clip_guided_segments.png"),
        help="the picture (default: %(default)s); for several images the folder of the results",
    )
    parser.add_argument("--save-json", type=Path, help="masks (COCO RLE), scores, points, settings")
    parser.add_argument("--save-label-map", type=Path, help="class of every pixel, palette PNG")
    parser.add_argument("--overlay", type=Path, help="the masks over the image, at its own size")
    add_picture_options(parser)
    add_export_options(parser)
    parser.add_argument(
        "--overwrite", action="store_true", help="with several images: start over in --output"
    )
    add_config_options(parser, PipelineConfig)
    return parser.parse_all(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    return run_main(_run_folder if is_several(args.image) else _run, args)


def _run_folder(args: argparse.Namespace) -> int:
    from models.images import load_image
    from pipeline.app.folder import check_output, segment_folder
    from pipeline.exports.cutouts import save_cutouts

    # All bad input is refused before the long work.
    check_output(args.output, args.save_heatmaps)
    for option in ("save_json", "save_label_map", "overlay"):
        if getattr(args, option):
            raise ValueError(
                f"--{option.replace('_', '-')} is for one image; for several all results are "
                "written into --output"
            )
    check_export_options(args)
    unread: list[Path] = []
    files = find_images(args.image, args.output, args.save_heatmaps, unread)
    args.upsampler = choose_upsampler(args)
    args.preset = args.preset or "vit-b16"
    config = config_from_args(args)
    refuse_ignored(args, IGNORED)
    vocabulary = read_vocabulary(args)
    say_limits(args)
    if args.export:
        pictures = [(_export_name(file.path, file.name), file.path) for file in files]
        _export(args, vocabulary.class_names).check(pictures)
    segmenter = _load(args, config)
    outcomes = segment_folder(
        segmenter,
        files,
        vocabulary,
        args.output,
        heatmaps=args.save_heatmaps,
        heatmap_format=args.heatmap_format,
        overwrite=args.overwrite,
        tags=args.tags,
        points=args.points,
    )
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    left_out = 0
    written = [args.output]
    if args.export:
        with _export(args, vocabulary.class_names) as export:
            for outcome, result in _results(args.output, outcomes):
                export.add(result, _export_name(outcome.image, outcome.name))
        written += export.paths
        left_out = len(export.left_out)
    if args.save_heatmaps:
        written.append(args.save_heatmaps)
    if args.cutouts:
        for outcome, result in _results(args.output, outcomes):
            save_cutouts(args.cutouts / outcome.name, load_image(outcome.image), result)
        written.append(args.cutouts)
    for outcome in failed:
        print(f"not segmented: {outcome.reason}", file=sys.stderr)
    if unread:
        kinds = ", ".join(sorted({path.suffix.lower() for path in unread}))
        print(f"left out: {len(unread)} files that are not read ({kinds})", file=sys.stderr)
    print(
        f"{len(outcomes) - len(failed)} of {len(outcomes)} images, "
        f"{sum(outcome.masks or 0 for outcome in outcomes)} masks -> "
        f"{', '.join(map(str, written))}"
    )
    return 1 if failed or left_out else 0


def _results(output: Path, outcomes: Sequence[Outcome]) -> Iterator[tuple[Outcome, Segmentation]]:
    """What was found in every image that is done; its path is that of this run."""
    from pipeline.app.folder import result_file
    from pipeline.result import Segmentation

    for outcome in outcomes:
        if outcome.status == "done":
            result = Segmentation.load_json(result_file(output, "json", outcome.name))
            yield outcome, replace(result, image_path=outcome.image)


def _export(args: argparse.Namespace, class_names: Sequence[str]) -> Export:
    from pipeline.exports.export import Export

    return Export(args.export_dir, args.export, class_names, args.export_settings)


def _export_name(image: str | Path, name: str) -> str:
    """The path of an image below the folder common to all, from the name of its results."""
    image = Path(image)
    return name if name.split("/")[-1] == image.name else name + image.suffix


def _load(args: argparse.Namespace, config: PipelineConfig) -> Segmenter:
    from pipeline.segmenter import Segmenter

    return Segmenter.from_preset(
        choose_preset(args),
        device=args.device,
        config=config,
        weights=given_weights(args, (args.upsampler,)),
        model_cfg=args.model_cfg,
        checkpoint=args.checkpoint,
    )


def _run(args: argparse.Namespace) -> int:
    from models.images import load_image
    from pipeline.drawing.layout import picture_format, save_array
    from pipeline.drawing.overlay import draw_overlay
    from pipeline.drawing.picture import save_picture
    from pipeline.files.atomic import write_each

    if not args.image[0].strip():
        raise ValueError("the image path is empty; give an image file or a folder")
    args.image = Path(args.image[0])
    # All bad input is refused before the long work.
    picture_format(args.output)
    picture_format(args.overlay or args.output)
    outputs = {
        "--output": args.output,
        "--save-json": args.save_json,
        "--save-label-map": args.save_label_map,
        "--overlay": args.overlay,
    }
    check_outputs(outputs, args.image)
    check_export_options(args)
    if args.save_label_map and args.save_label_map.suffix.lower() != ".png":
        raise ValueError(f"--save-label-map {args.save_label_map}: its name must end in .png")
    args.upsampler = choose_upsampler(args)
    config = config_from_args(args)
    refuse_ignored(args, IGNORED)
    vocabulary = read_vocabulary(args)
    if args.export:
        _export(args, vocabulary.class_names).check([(args.image.name, args.image)])
    image = load_image(args.image)
    say_limits(args, image)

    from pipeline.exports.cutouts import save_cutouts
    from pipeline.exports.heatmaps import save_heatmaps
    from pipeline.found import say_nothing_found, say_what_is_missing

    segmenter = _load(args, config)
    result = segmenter.segment(
        image, vocabulary, image_path=str(args.image), keep_probs=args.save_heatmaps is not None
    )
    written: list[Path] = []
    left_out: list[str] = []

    def export_all() -> None:
        with _export(args, result.class_names) as export:
            export.add(result)
        left_out.extend(export.left_out)
        written.extend(export.paths)

    def save_maps() -> None:
        if new := [folder for folder in (args.save_heatmaps, maps) if not folder.exists()]:
            mark_folder(new[0])  # in others there may be photographs
        assert result.probs is not None, "they were asked for"
        save_heatmaps(maps, result.probs, result.class_names, kind=args.heatmap_format)
        written.append(maps)

    saves: list[tuple[Path, Callable[[], object]]] = []
    marks = {"tags": args.tags, "points": args.points}
    saves.append((args.output, lambda: save_picture(args.output, image, result, **marks)))
    if args.save_json:
        saves.append((args.save_json, lambda: result.save_json(args.save_json)))
    if args.save_label_map:
        saves.append((args.save_label_map, lambda: result.save_label_map(args.save_label_map)))
    if args.overlay:
        overlay = draw_overlay(image, result, result.size, **marks)
        saves.append((args.overlay, lambda: save_array(args.overlay, overlay)))
    if args.cutouts:
        cut = args.cutouts / args.image.stem
        saves.append((cut, lambda: save_cutouts(cut, image, result)))
    written.extend(path for path, _ in saves)
    if args.export:
        saves.append((args.export_dir, export_all))
    if args.save_heatmaps:
        maps = args.save_heatmaps / args.image.stem
        saves.append((maps, save_maps))
    write_each(saves)
    for index in range(len(result)):
        x, y = result.points[index][0]
        print(
            f"{result.class_name(index):<16} score {result.scores[index]:.2f}  "
            f"area {int(result.masks[index].sum()):>7} px  point ({x:.0f}, {y:.0f})  "
            f"from {result.sources[index]}"
        )
    if not len(result):
        print(say_nothing_found(result, args.min_region_size))
    elif missing := say_what_is_missing(result):
        print(f"not found: {missing.removeprefix('best: ')}")
    print(
        f"{len(result)} masks in {sum(result.timings.values()):.1f} s -> "
        f"{', '.join(map(str, written))}"
    )
    return 1 if left_out else 0


if __name__ == "__main__":
    sys.exit(main())
