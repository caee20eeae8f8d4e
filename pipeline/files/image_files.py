"""Which images a user means by files, folders and lists, and a name for each one's results."""

from __future__ import annotations

import glob
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from models.vocabulary import read_list

from .atomic import read_json, write_atomically

logger = logging.getLogger(__name__)

SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".pjpeg", ".pjp", ".mpo", ".png", ".apng",
    ".webp", ".tif", ".tiff", ".bmp", ".dib", ".gif", ".avif",
)  # fmt: skip
_HEIF = (".heic", ".heif", ".hif")  # read where pillow-heif is installed
_OTHER = (
    ".jp2", ".j2k", ".jpf", ".jpx", ".jpm", ".j2c", ".jpc", ".jxl", ".jxr", ".wdp", ".hdp",
    ".heics", ".heifs", ".avifs", ".avci", ".psd", ".psb", ".xcf", ".kra", ".svg", ".svgz", ".eps",
    ".ico", ".icns", ".cur", ".tga", ".dds", ".exr", ".hdr", ".pcx", ".ppm", ".pgm", ".pbm",
    ".pnm", ".pam", ".pfm", ".qoi", ".sgi", ".ras", ".xbm", ".xpm", ".wmf", ".emf", ".fits",
    ".dcm", ".djvu", ".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2",
    ".orf", ".rw2", ".raf", ".pef", ".srw", ".x3f", ".erf", ".kdc", ".dcr", ".mrw", ".3fr",
    ".fff", ".iiq", ".mef", ".mos", ".rwl", ".gpr", ".raw",
)  # fmt: skip

MARKER = ".segment-words"  # a folder with such a file holds what the programs wrote
_SETTINGS = {"preset", "weights"}  # keys of a settings.json of ours


class ImageFile(NamedTuple):
    """An image and the name of its results."""

    path: Path  # as given; it need not exist
    name: str  # relative path below the folder common to all images, mostly without ending


def is_several(entries: Sequence[str]) -> bool:
    """Whether the entries may stand for more than one image: by what they are, not by how many."""
    first = entries[0]
    return len(entries) != 1 or first.startswith("@") or os.path.isdir(first) or _is_pattern(first)


def mark_folder(folder: Path) -> None:
    """Say of a folder that what is in it was written here, so that it is not taken for photographs.

    Raises:
        WriteError: the folder cannot be written.
    """
    if not (folder / MARKER).exists():
        write_atomically(folder / MARKER, b"Written by segment-words: no pictures to segment.\n")


def find_images(
    entries: Sequence[str | Path],
    output: Path,
    heatmaps: Path | None = None,
    left_out: list[Path] | None = None,
) -> list[ImageFile]:
    """All images that are meant, each once: folders in the order of names, else as given.

    Of a folder, all files at any depth that end like an image are taken, hidden ones and those in
    `output`, `heatmaps`, and any other folder that the programs wrote excepted; links to folders
    are not followed. Images of kinds that are not read, and written folders, are told by a warning.
    What else is wrong with a file shows when it is read.

    Args:
        entries: files, folders, patterns as "photos/*.jpg", and "@list.txt" for the lines of a
            UTF-8 file, one path a line (`#` starts a comment).
        output: folder of the results.
        heatmaps: folder of the heat maps.
        left_out: gets the images of kinds that are not read.

    Raises:
        FileNotFoundError, OSError: a list does not exist, a pattern fits nothing, or a folder
            cannot be read.
        ValueError: no image, a blank path, an unreadable list, or something inside `output` or
            `heatmaps`, or a folder that the programs wrote.
    """
    written = {Path(os.path.abspath(output)): "--output"}
    if heatmaps:
        written[Path(os.path.abspath(heatmaps))] = "--save-heatmaps"
    others: list[Path] = [] if left_out is None else left_out
    ours: dict[Path, None] = {}  # folders that earlier runs wrote

    def skipped(folder: Path) -> bool:
        if Path(os.path.abspath(folder)) in written:
            return True
        if is_ours := _is_ours(folder):
            ours[folder] = None
        return is_ours

    found: dict[Path, Path] = {}  # absolute → as given
    roots = set()
    for path in _paths(entries, skipped):
        absolute = Path(os.path.abspath(path))
        for folder, option in written.items():
            if absolute.is_relative_to(folder):
                raise ValueError(f"'{path}' is inside {option}, {folder}; give another folder")
        if os.path.isdir(path):  # not Path.is_dir: it raises where a name is too long
            if _is_ours(path):
                raise ValueError(
                    f"the folder '{path}' holds what an earlier run wrote, no photographs; give "
                    "the folder of the pictures"
                )
            roots.add(absolute)
            before = len(others)
            inside = list(_walk(path, skipped, others))
            if not inside:
                instead = f"; left out: {_listed(others[before:])}" if others[before:] else ""
                raise ValueError(
                    f"the folder '{path}' holds no image ({', '.join(SUFFIXES)}){instead}"
                )
        else:
            roots.add(absolute.parent)
            inside = [path]
        for file in inside:
            found.setdefault(Path(os.path.abspath(file)), file)
    if others:
        hint = "; .heic needs: pip install pillow-heif"
        heif = any(path.suffix.lower() in _HEIF for path in others)
        logger.warning("left out, as such files are not read: %s%s", _listed(others), hint * heif)
    if ours:
        logger.warning("not searched, as earlier runs wrote them: %s", _listed(list(ours)))
    root = os.path.commonpath(roots)
    names = _names([Path(os.path.relpath(absolute, root)).as_posix() for absolute in found])
    return [ImageFile(path, name) for path, name in zip(found.values(), names, strict=True)]


def _paths(entries: Sequence[str | Path], skipped: Callable[[Path], bool]) -> Iterator[Path]:
    """Files and folders that are given, in lists and by patterns too."""
    for entry in map(str, entries):
        if entry.startswith("@"):
            for _, line in read_list(entry[1:], what="image list", entry="image path"):
                yield Path(line)
        elif not entry.strip():
            raise ValueError("the image path is empty; give an image file or a folder")
        elif _is_pattern(entry):
            yield from _matches(entry, skipped)
        else:
            yield Path(entry)


def _is_pattern(entry: str) -> bool:
    """Whether an entry stands for files that fit it: shells of Windows leave that to programs."""
    if os.path.lexists(entry):
        return False
    return any(sign in entry for sign in "*?") or ("[" in entry and bool(_glob(entry)))


def _glob(pattern: str) -> list[str]:
    # Quoted for a shell of Windows, a pattern has its slashes.
    return sorted(
        glob.glob(pattern, recursive=True) or glob.glob(pattern.replace("\\", "/"), recursive=True)
    )


def _matches(pattern: str, skipped: Callable[[Path], bool]) -> list[Path]:
    """What fits, sorted, without folders that are skipped below where the pattern begins."""
    base = Path()
    for part in Path(pattern.replace("\\", "/")).parts:
        if any(sign in part for sign in "*?["):
            break
        base /= part
    found = []
    for match in map(Path, _glob(pattern)):
        below = [place for place in (match, *match.parents) if base in place.parents]
        if not any(skipped(place) for place in below if place != match or match.is_dir()):
            found.append(match)
    if not found:
        raise FileNotFoundError(f"no image fits '{pattern}'; check the pattern")
    return found


def _is_ours(folder: Path) -> bool:
    """Whether the programs wrote a folder: results, heat maps, predictions, exports."""
    if (folder / MARKER).is_file():
        return True
    try:
        return read_json(folder / "settings.json").keys() >= _SETTINGS
    except (OSError, ValueError):
        return False


def _listed(paths: Sequence[Path]) -> str:
    more = f" and {len(paths) - 5} more" if len(paths) > 5 else ""
    return ", ".join(map(str, paths[:5])) + more


def _walk(folder: Path, skipped: Callable[[Path], bool], others: list[Path]) -> Iterator[Path]:
    """Images below a folder, sorted; those of kinds that are not read are added to `others`."""

    def refuse(error: OSError) -> None:
        raise error

    from models.images import reads_heif  # which loads numpy, and --help need not

    endings = SUFFIXES + (_HEIF if reads_heif() else ())
    if ".avif" not in Image.registered_extensions():  # an older Pillow
        endings = tuple(ending for ending in endings if ending != ".avif")
    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and not skipped(Path(place, name))
        )
        for name in sorted(name for name in files if not name.startswith(".")):
            if name.lower().endswith(endings):
                yield Path(place, name)
            elif name.lower().endswith((*SUFFIXES, *_HEIF, *_OTHER)):
                others.append(Path(place, name))


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
