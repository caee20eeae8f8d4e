"""Which images a user means by files, folders and lists, and a name for each one's results."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from models.vocabulary import read_list

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")


class ImageFile(NamedTuple):
    """An image and the name of its results."""

    path: Path  # as given; it need not exist
    name: str  # relative path below the folder common to all images, mostly without ending


def is_several(entries: Sequence[str]) -> bool:
    """Whether the entries may stand for more than one image: by what they are, not by how many."""
    return len(entries) != 1 or entries[0].startswith("@") or os.path.isdir(entries[0])


def find_images(
    entries: Sequence[str | Path], output: Path, heatmaps: Path | None = None
) -> list[ImageFile]:
    """All images that are meant, each once: folders in the order of names, else as given.

    Of a folder, all files at any depth that end like an image are taken, hidden ones and those in
    `output` or `heatmaps` excepted; links to folders are not followed. What else is wrong with a
    file shows when it is read.

    Args:
        entries: files, folders, and "@list.txt" for the lines of a UTF-8 file, one path a line
            (`#` starts a comment).
        output: folder of the results.
        heatmaps: folder of the heat maps.

    Raises:
        FileNotFoundError, OSError: a list does not exist, or a folder cannot be read.
        ValueError: no image, a blank path, an unreadable list, or something inside `output` or
            `heatmaps`.
    """
    paths: list[Path] = []
    for entry in map(str, entries):
        if entry.startswith("@"):
            lines = read_list(entry[1:], what="image list", entry="image path")
            paths += [Path(line) for _, line in lines]
        elif entry.strip():
            paths.append(Path(entry))
        else:
            raise ValueError("the image path is empty; give an image file or a folder")
    written = {Path(os.path.abspath(output)): "--output"}
    if heatmaps:
        written[Path(os.path.abspath(heatmaps))] = "--save-heatmaps"
    found: dict[Path, Path] = {}  # absolute → as given
    roots = set()
    for path in paths:
        absolute = Path(os.path.abspath(path))
        for folder, option in written.items():
            if absolute.is_relative_to(folder):
                raise ValueError(f"'{path}' is inside {option}, {folder}; give another folder")
        if os.path.isdir(path):  # not Path.is_dir: it raises where a name is too long
            roots.add(absolute)
            inside = list(_walk(path, written))
            if not inside:
                raise ValueError(f"the folder '{path}' holds no image ({', '.join(SUFFIXES)})")
        else:
            roots.add(absolute.parent)
            inside = [path]
        for file in inside:
            found.setdefault(Path(os.path.abspath(file)), file)
    root = os.path.commonpath(roots)
    names = _names([Path(os.path.relpath(absolute, root)).as_posix() for absolute in found])
    return [ImageFile(path, name) for path, name in zip(found.values(), names, strict=True)]


def _walk(folder: Path, without: Container[Path]) -> Iterator[Path]:
    """Images below a folder, sorted."""

    def refuse(error: OSError) -> None:
        raise error

    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and Path(os.path.abspath(place), name) not in without
        )
        for name in sorted(files):
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield Path(place, name)


def _names(relative: Sequence[str]) -> list[str]:
    """Relative paths without their endings; with them where two names would be the same.

    Case does not tell names apart: on some disks it does not tell files apart.
    """
    names = [path.removesuffix(Path(path).suffix) for path in relative]
    while True:
        counts = Counter(name.casefold() for name in names)
        # A whole path may in turn be what another one is without its ending.
        longer = [
            path if counts[name.casefold()] > 1 else name
            for path, name in zip(relative, names, strict=True)
        ]
        if longer == names:
            return names
        names = longer
