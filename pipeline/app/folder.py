"""Many images in, a folder of results out.

    OUTPUT/pictures/NAME.jpg   what `save_picture` draws
    OUTPUT/labels/NAME.png     class of every pixel, palette PNG
    OUTPUT/json/NAME.json      masks (COCO RLE), scores, points; and the SHA-256 of the image file
    OUTPUT/summary.csv         a row for every image
    OUTPUT/settings.json       what all of it was made with
    HEATMAPS/NAME/000_….png    where asked for: how probable each class is, see `exports.heatmaps`
    HEATMAPS/settings.json     what these were made with, and for which OUTPUT

NAME is the image's path below the folder common to all images, without its ending. Files are
written whole or not at all, an image's JSON last: an image is done when that exists, and all of its
heat maps. A run that was interrupted, however roughly, continues with what is missing.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from models.device import is_out_of_memory
from models.images import load_image
from models.vocabulary import Vocabulary

from ..drawing.picture import save_picture
from ..exports.heatmaps import heatmap_files, save_heatmaps
from ..files.atomic import WriteError, read_json, sha256, write_atomically, write_json
from ..files.image_files import SUFFIXES, ImageFile, find_images
from ..files.settings import claim_folder
from ..segmenter import Segmenter
from .progress import progress

_KINDS = {"pictures": ".jpg", "labels": ".png", "json": ".json"}  # folder → ending, as written
_LEFTOVERS = "." + 32 * "[0-9a-f]" + ".tmp"  # of a process that was killed while it wrote


class Outcome(NamedTuple):
    """A row of the summary."""

    image: str
    name: str  # of its results, see `result_file`
    status: str  # "done" or "failed"
    masks: int | None = None
    classes: str = ""  # found, joined by "; "
    seconds: float | None = None
    reason: str = ""  # why it failed


class _FailedError(Exception):
    """One image has no result; the others can have theirs."""


def segment_folder(
    segmenter: Segmenter,
    images: str | Path | Sequence[str | Path] | Sequence[ImageFile],
    vocabulary: Sequence[str] | Vocabulary,
    output: str | Path,
    *,
    background: Sequence[str] | None = None,
    not_words: Sequence[str] = (),
    thresholds: Mapping[str, float] | None = None,
    heatmaps: str | Path | None = None,
    heatmap_format: str = "png",
    overwrite: bool = False,
    tags: bool = True,
    points: bool = True,
) -> list[Outcome]:
    """Segment all images that have no result yet.

    Args:
        segmenter: segments each of them.
        images: folder, file, pattern or "@list.txt", or several of them, see `find_images`; or
            what that returned.
        vocabulary, background, not_words, thresholds: see `Segmenter.segment`.
        output: folder of the results.
        heatmaps: folder of the heat maps, if there are to be any. Images that are done without
            them are segmented again.
        heatmap_format: theirs, of `exports.HEATMAP_FORMATS`.
        overwrite: remove the results that are there and start over.
        tags, points: whether class names and prompt points lie on the masks of the pictures.

    Returns:
        Of every image what became of it, in order. One that cannot be read, or is too large for
        the memory, has status "failed" and a reason; a later call tries it again.

    Raises:
        ValueError, OSError: see `find_images` and `check_output`; the results that are there were
            made with other settings; or a result cannot be written.
        KeyboardInterrupt: on Ctrl-C; its message says how many images are done.
    """
    output, heatmaps = Path(output), None if heatmaps is None else Path(heatmaps)
    check_output(output, heatmaps)
    entries = [images] if isinstance(images, str | Path) else images
    files = [entry for entry in entries if isinstance(entry, ImageFile)] or find_images(
        [entry for entry in entries if not isinstance(entry, ImageFile)], output, heatmaps
    )
    words = segmenter.vocabulary(vocabulary, background, not_words, thresholds)
    plain = {name: on for name, on in (("tags", tags), ("points", points)) if not on}
    outcomes: list[Outcome] = []
    try:
        wanted = segmenter.made_with(words) | plain
        _claim(output, wanted, overwrite=overwrite)
        if heatmaps:
            maps_of = {"results": str(output.resolve()), "format": heatmap_format}
            _claim_heatmaps(heatmaps, wanted | maps_of, overwrite)
        for file in progress(files, "image", lambda: sum(o.status == "failed" for o in outcomes)):
            try:
                outcomes.append(
                    _segment(segmenter, file, words, output, heatmaps, heatmap_format, plain)
                )
            except _FailedError as error:
                reason = " ".join(str(error).split())
                outcomes.append(Outcome(str(file.path), file.name, "failed", reason=reason))
        _write_summary(output / "summary.csv", outcomes)
    except (KeyboardInterrupt, WriteError) as error:
        done = sum(
            os.path.isfile(result_file(output, "json", file.name))
            and not _missing(heatmaps, file, words, heatmap_format)
            for file in files
        )
        again = "the same command without --overwrite" if overwrite else "the same command"
        state = f"{done} of {len(files)} images are done; {again} goes on"
        if isinstance(error, WriteError):
            raise WriteError(f"{error}; {state}") from error
        raise KeyboardInterrupt(state) from None
    return outcomes


def check_output(output: Path, heatmaps: Path | None = None) -> None:
    """Refuse before the long work folders that cannot take results.

    Raises:
        ValueError: the name of an image or of another file, a folder in which nothing can be
            written, or one with files that are no results; or one folder for both.
    """
    _check_folder("--output", output)
    if heatmaps is None:
        return
    _check_folder("--save-heatmaps", heatmaps)
    if heatmaps.resolve() == output.resolve():
        raise ValueError(f"--save-heatmaps {heatmaps} is also --output; give another folder")
    claim = heatmaps / "settings.json"
    if claim.exists() and "results" not in read_json(claim):
        raise ValueError(f"--save-heatmaps {heatmaps} holds other results; give another folder")


def _check_folder(option: str, output: Path) -> None:
    if output.suffix.lower() in SUFFIXES:
        raise ValueError(
            f"several images need a folder for their results, not {output}: give {option} FOLDER"
        )
    there = next(place for place in (output, *output.absolute().parents) if place.exists())
    if not there.is_dir():
        raise ValueError(f"{option} {output} cannot be a folder: {there} is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"{option} {output} cannot be written: no permission for {there}")
    if output.exists() and not (output / "settings.json").exists():
        # Hidden files are what file managers leave, or a process killed in its first write.
        if any(not entry.name.startswith(".") for entry in output.iterdir()):
            raise ValueError(
                f"{option} {output} holds files that are no results (there is no settings.json); "
                "give a new or an empty folder"
            )


def result_file(output: Path, kind: str, name: str) -> Path:
    """Where the result `kind` ("pictures", "labels" or "json") of an image is."""
    return output / kind / f"{name}{_KINDS[kind]}"


def _claim(output: Path, wanted: dict[str, Any], *, overwrite: bool) -> None:
    """Make the folder ready for results of these settings."""
    for place in (output.glob, *((output / kind).rglob for kind in _KINDS)):
        for leftover in place(_LEFTOVERS):
            leftover.unlink()
    if overwrite:
        (output / "summary.csv").unlink(missing_ok=True)
        for kind in reversed(_KINDS):  # the JSON first: without it the rest counts for nothing
            for old in (output / kind).rglob(f"*{_KINDS[kind]}"):
                old.unlink()
    claim_folder(output, wanted, taken=any((output / "json").rglob("*.json")), what="results")


def _claim_heatmaps(folder: Path, wanted: dict[str, Any], overwrite: bool) -> None:
    """Make the folder ready for the heat maps that belong to these results."""
    maps = "[0-9][0-9][0-9]*_*.[pn][np][gy]"
    for old in [*folder.rglob(_LEFTOVERS), *(folder.rglob(maps) if overwrite else ())]:
        old.unlink()
    taken = any(folder.rglob(maps))
    claim_folder(folder, wanted, taken=taken, what="heat maps", option="--save-heatmaps")


def _missing(heatmaps: Path | None, file: ImageFile, words: Vocabulary, kind: str) -> bool:
    """Whether an image has not all the heat maps that are asked for."""
    if heatmaps is None:
        return False
    background = bool(words.background)
    maps = heatmap_files(heatmaps / file.name, words.class_names, background=background, kind=kind)
    return not all(path.is_file() for path in maps)


def _segment(
    segmenter: Segmenter,
    file: ImageFile,
    words: Vocabulary,
    output: Path,
    heatmaps: Path | None,
    kind: str,
    plain: Mapping[str, bool],
) -> Outcome:
    """Make the results of an image unless they are there."""
    target = result_file(output, "json", file.name)
    try:
        # `load_image` says best what is wrong with anything else.
        digest = sha256(file.path) if file.path.is_file() else None
        if digest and (finished := _finished(file, target)):
            made_of, outcome = finished
            if made_of != digest:
                raise ValueError(
                    f"'{file.path}' is not the image that {target} was made of; delete that file, "
                    "or choose another --output"
                )
            if not _missing(heatmaps, file, words, kind):
                return outcome
        image = load_image(file.path)
    except (OSError, ValueError) as error:
        raise _FailedError(str(error)) from error
    except MemoryError as error:
        raise _FailedError(f"'{file.path}' needs more memory than there is; shrink it") from error
    try:
        result = segmenter.segment(
            image, words, image_path=str(file.path), keep_probs=heatmaps is not None
        )
        record = result.to_json_dict()
        record["image"]["sha256"] = digest
        if heatmaps and result.probs is not None:
            save_heatmaps(heatmaps / file.name, result.probs, result.class_names, kind=kind)
        save_picture(result_file(output, "pictures", file.name), image, result, **plain)
        result.save_label_map(result_file(output, "labels", file.name))
        write_json(target, record)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        height, width = image.shape[:2]
        raise _FailedError(
            f"'{file.path}' needs more memory than there is ({width}×{height} pixels); shrink it"
        ) from error
    return _outcome(file, record)


def _finished(file: ImageFile, target: Path) -> tuple[str, Outcome] | None:
    """Of a finished image what it was made of and its row; None if there is none, or a damaged."""
    try:
        record = read_json(target)
        return record["image"]["sha256"], _outcome(file, record)
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _outcome(file: ImageFile, record: dict[str, Any]) -> Outcome:
    """The summary's row of a finished image; the same whether it was made now or earlier."""
    found = {mask["class_id"]: mask["class_name"] for mask in record["masks"]}
    return Outcome(
        image=str(file.path),
        name=file.name,
        status="done",
        masks=len(record["masks"]),
        classes="; ".join(found[index] for index in sorted(found)),
        seconds=round(sum(record["timings"].values()), 3),
    )


def _write_summary(path: Path, outcomes: Sequence[Outcome]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Outcome._fields)
    writer.writerows(outcomes)
    write_atomically(path, text.getvalue().encode("utf-8", errors="replace"))
