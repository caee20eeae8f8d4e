"""Check a data set on disk, and write label maps of the download as other tools read them.

COCO's raw `stuffthingmaps` become `_labelTrainIds` and `_instanceTrainIds`, Cityscapes' `labelIds`
become `labelTrainIds`: mmsegmentation's names and numbers. Pascal Context's MATLAB files with their
459 labels (trainval/*.mat and labels.txt) become the 59 classes; its other source, the annotations
of the Detail API, is not read. ADE20K and VOC need no conversion.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from models.places import load_place

from ..files.atomic import write_atomically
from ..files.label_png import read_index_png, write_index_png
from . import DATASETS, open_dataset
from .indexed import Layout, decode, numbers_of, plain_name, read_names
from .layouts import CONTEXT, LAYOUTS
from .lists import read_ids

_SHOWN = 5  # of a long list of problems


@dataclass(kw_only=True)
class Check:
    """What was found: `notes` to know, `problems` to mend."""

    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def prepare(name: str, root: str | Path, split: str | None = None, *, write: bool = True) -> Check:
    """Convert what has to be, then look at every picture and label map of a split.

    Args:
        name: key of `DATASETS`.
        root: the data set's folder; converted label maps are written into it.
        split: one of its lists; None takes the row's.
        write: False writes nothing.

    Raises:
        FileNotFoundError: no such folder, or nothing of the data set in it.
        ValueError: unknown name; classes are named in another order, or prepared label maps hold
            them in another order than the raw ones beside them.
        OSError: a file cannot be written.
    """
    if name not in DATASETS:
        raise ValueError(f"unknown data set {name!r}; valid: {', '.join(DATASETS)}")
    root, split, check = Path(root), split or DATASETS[name].split, Check()
    if layout := LAYOUTS.get(name):
        if layout is CONTEXT:
            _convert_context(root, split, check, write=write)
        else:
            _convert(layout, root, split, check, write=write)
    dataset = open_dataset(name, root, split)
    check.notes.append(f"{len(dataset.ids)} images in the list {split!r}")
    sizes = layout.sizes.get(split) if layout else None
    published = sizes or ((dataset.official_size,) if dataset.official_size else ())
    if published and len(dataset.ids) not in published:
        expected = " or ".join(f"{size:,}" for size in published)
        check.problems.append(f"{len(dataset.ids):,} images, published are {expected}")
    elif len(published) > 1:
        check.notes.append("sources differ: " + " or ".join(f"{size:,}" for size in published))
    counts, failures = np.zeros(len(dataset.labels), np.int64), []
    for image_id in tqdm(dataset.ids, desc="checking", unit="image", disable=None):
        try:
            labels = dataset.load_truth(image_id).labels
        except (OSError, ValueError) as error:
            failures.append(" ".join(str(error).split()))
            continue
        found = np.bincount(labels.ravel(), minlength=256)[: len(counts)]
        counts += found
    _list_problems(check, failures, "images or label maps are missing or damaged")
    absent = [n for n, count in zip(dataset.labels[1:], counts[1:], strict=True) if not count]
    if absent:
        check.notes.append(f"{len(absent)} classes do not occur: {', '.join(absent)}")
    return check


def _convert(layout: Layout, root: Path, split: str, check: Check, *, write: bool) -> None:
    """Raw label maps to prepared ones, which are compared where they are there already."""
    numbers = numbers_of(layout.places[0].codes)
    for place in layout.places:
        ids = place.ids(root, split) if place.prepared else []
        # The pictures may lie elsewhere, and a folder hold prepared label maps alone.
        if not any(place.path(place.label, root, split, name).is_file() for name in ids):
            continue
        written, same, failures = 0, 0, []
        for image_id in tqdm(ids, desc="converting", unit="image", disable=None):
            source = place.path(place.label, root, split, image_id)
            target = place.path(place.prepared, root, split, image_id)
            try:
                values = numbers[decode(source, place.codes)]
            except (OSError, ValueError) as error:
                failures.append(" ".join(str(error).split()))
                continue
            if target.is_file():
                _compare(source, values, target)
                same += 1
            elif write:
                write_index_png(target, values)
                written += 1
        if written or same:
            prepared = place.prepared.format(split=split, id="*", group="*")
            raw = place.label.format(split=split, id="*", group="*")
            check.notes.append(f"{prepared}: {written} written, {same} agree with {raw}")
        _list_problems(check, failures, "raw label maps cannot be converted")
        return  # the other places are the same files beside other pictures


def _compare(source: Path, values: np.ndarray, target: Path) -> None:
    """ValueError unless a prepared label map holds what its raw one says."""
    there = read_index_png(target)
    if there.shape != values.shape:
        raise ValueError(f"'{target}' is of another size than '{source}'; remove it")
    if (other := there != values).any():
        y, x = np.argwhere(other)[0]
        raise ValueError(
            f"'{target}' holds classes in another order than '{source}' says: pixel ({x}, {y}) is "
            f"{there[y, x]}, expected {values[y, x]}; remove it and the others of its kind"
        )


def _convert_context(root: Path, split: str, check: Check, *, write: bool) -> None:
    """MATLAB's label maps, by the names of their labels, and the list of a split."""
    folder = root / "trainval"
    listing = root / (CONTEXT.listing or "").format(split=split)
    if not write or not any(folder.glob("*.mat")):
        return
    names = next((p for p in (folder / "labels.txt", root / "labels.txt") if p.is_file()), None)
    if names is None:
        raise FileNotFoundError(
            f"'{folder}' has label maps but no labels.txt, which says what their numbers mean; "
            "put it there from the same download"
        )
    if not listing.is_file():
        listed = read_ids(root / "ImageSets" / "Main" / f"{split}.txt")
        ids = [name for name in listed if (folder / f"{name}.mat").is_file()]
        write_atomically(listing, "".join(f"{name}\n" for name in ids).encode("ascii"))
        check.notes.append(f"wrote '{listing}': {len(ids)} of {len(listed)} images have labels")
    written, failures = 0, []
    for image_id, labels in _context_maps(folder, names, read_ids(listing), failures):
        target = CONTEXT.places[0].path(CONTEXT.places[0].label, root, split, image_id)
        if target.is_file():
            _compare(folder / f"{image_id}.mat", labels, target)
        else:
            write_index_png(target, labels)
            written += 1
    check.notes.append(f"{written} label maps written from '{folder}'")
    _list_problems(check, failures, "MATLAB files cannot be converted")


def _context_maps(
    folder: Path, names: Path, ids: tuple[str, ...], failures: list[str]
) -> Iterator[tuple[str, np.ndarray]]:
    """Id and label map, (H, W) uint8, of every readable MATLAB file."""
    loadmat = load_place("scipy.io:loadmat")
    label_of = {plain_name(name): label for label, name in enumerate(CONTEXT.classes, 1)}
    table = np.zeros(1 + np.iinfo(np.uint16).max, np.uint8)  # other labels are background
    for number, found in read_names(names):
        table[number] = label_of.get(plain_name(found[0]), 0)
    missing = [c for c in CONTEXT.classes if label_of[plain_name(c)] not in table]
    if missing:
        raise ValueError(f"'{names}' does not name {', '.join(missing)}; take the download's file")
    for image_id in tqdm(ids, desc="converting", unit="image", disable=None):
        path = folder / f"{image_id}.mat"
        try:
            labels = np.asarray(loadmat(path)["LabelMap"])
            yield image_id, table[labels.astype(np.uint16)]
        except (OSError, ValueError, KeyError, TypeError) as error:
            failures.append(f"'{path}' holds no LabelMap ({' '.join(str(error).split())})")


def _list_problems(check: Check, failures: list[str], what: str) -> None:
    if failures:
        more = f" and {len(failures) - _SHOWN} more" if len(failures) > _SHOWN else ""
        check.problems.append(f"{len(failures)} {what}: {'; '.join(failures[:_SHOWN])}{more}")
