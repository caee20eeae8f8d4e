"""Read data sets whose label maps are PNGs of class numbers: what most of them are.

A `Layout` says, as data, where files lie and what their numbers mean; `pipeline.datasets.layouts`
has them. Whatever the files hold, labels are 0 background or unlabelled, i + 1 class i, 255 not
scored. Shapes: H×W image pixels, C classes.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.images import load_image

from ..files.label_png import read_index_png
from .base import GroundTruth
from .lists import check_limit, check_size, is_list_path, picture_size, read_ids

logger = logging.getLogger(__name__)

IGNORE = 255
INVALID = -1  # a number that no file of the kind holds
OWN_NAMES = "classes.txt"  # names of the classes, one a line, in the order of the labels


@dataclass(frozen=True, kw_only=True, eq=False)
class Place:
    """Where pictures and label maps lie below the root, and what the maps' numbers mean.

    Attributes:
        image, label: paths; {split}, {id}, and {group}, the id's part before its first "_".
        codes: (256,) int16, the label of each number in a file, or `INVALID`.
        prepared: of maps as they are downloaded: where the prepared ones lie, in the numbers of the
            layout's first place.
    """

    image: str
    label: str
    codes: np.ndarray
    prepared: str = ""

    def path(self, pattern: str, root: Path, split: str, image_id: str) -> Path:
        group = image_id.partition("_")[0]
        return root / pattern.format(split=split, id=image_id, group=group)

    def folder(self, pattern: str, root: Path, split: str) -> Path:
        """The deepest folder that holds the files of all images."""
        fixed = pattern.format(split=split, id="\0", group="\0").split("\0")[0]
        return root / fixed.rpartition("/")[0]

    def ids(self, root: Path, split: str) -> list[str]:
        """The pictures that are there, sorted."""
        pattern = self.image.format(split=split, id="*", group="*")
        before, _, after = self.image.rpartition("/")[2].partition("{id}")
        names = sorted(path.name for path in root.glob(pattern))
        return [name[len(before) : len(name) - len(after)] for name in names]


@dataclass(frozen=True, kw_only=True, eq=False)
class NamesFile:
    """A file of the download that names the classes: a wrong order of classes shows there.

    Attributes:
        path: below the root.
        codes: see `Place.codes`, of the label maps that it is about.
        offset: what to add to a line's number for the number in these.
    """

    path: str
    codes: np.ndarray
    offset: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Layout:
    """A data set on disk.

    Attributes:
        name: key of `DATASETS`.
        classes: their names, by label.
        rendered: those of the rendered scenes that stand in for it.
        places: the prepared files first; the first whose folders are there is read.
        sizes: of a split's list, as published; several where sources differ.
        listing: path of the list of a split, with {split}; None: all pictures of the split.
        names: files that name the classes.
    """

    name: str
    classes: tuple[str, ...]
    rendered: tuple[str, ...]
    places: tuple[Place, ...]
    sizes: dict[str, tuple[int, ...]]
    listing: str | None = None
    names: tuple[NamesFile, ...] = ()

    def find(self, root: Path, split: str) -> Place:
        """The place whose folders are there.

        Raises:
            FileNotFoundError: no such root, or none of the places.
        """
        if not root.is_dir():
            raise FileNotFoundError(f"folder of {self.name} not found: '{root}'; check the path")
        for place in self.places:
            if all(place.folder(p, root, split).is_dir() for p in (place.image, place.label)):
                if self.listing:  # not every picture has a label map
                    return place
                # A folder may hold several kinds of label maps: those of its pictures count.
                some = place.ids(root, split)[:100]
                if any(place.path(place.label, root, split, name).is_file() for name in some):
                    return place
        looked = " or ".join(f"{place.image} with {place.label}" for place in self.places)
        raise FileNotFoundError(
            f"'{root}' does not hold {self.name}'s split {split!r}: expected {looked}; "
            "scripts/prepare_dataset.py says what is missing"
        )

    def open(
        self, root: str | Path, split: str | Path = "val", limit: int | None = None
    ) -> IndexedDataset:
        """Find the data set and list its images; they are not touched yet.

        Args:
            root: its folder.
            split: a name, or the path of a text file of ids, whose images lie among those of val;
                what ends in .txt or has a slash is a path.
            limit: take only the first ids; None takes all.

        Raises:
            FileNotFoundError: no such folder or list.
            ValueError: the list is empty or damaged; `limit` is not positive; a file of the data
                set names its classes in another order.
        """
        root, split = Path(root), str(split)
        check_limit(limit)
        folder = "val" if is_list_path(split) else split
        place = self.find(root, folder)
        if is_list_path(split):
            ids = read_ids(Path(split))
        elif self.listing:
            ids = read_ids(root / self.listing.format(split=split))
        else:
            ids = tuple(place.ids(root, split))
        return IndexedDataset(
            layout=self,
            place=place,
            root=root,
            split=split,
            folder=folder,
            ids=ids[:limit],
            listed=len(ids),
            classes=self.check_names(root),
        )

    def check_names(self, root: Path) -> tuple[str, ...]:
        """The classes by label, held against the files of the data set that name them.

        Raises:
            ValueError: a file names another class where a known one belongs.
        """
        if (own := root / OWN_NAMES).is_file():
            found = tuple(name for _, names in read_names(own) for name in names[:1])
            if found == self.rendered:
                return self.rendered
            self._compare(own, enumerate(((name,) for name in found), 1))
        for file in self.names:
            if (path := root / file.path).is_file():
                named = ((number + file.offset, names) for number, names in read_names(path))
                labels = ((int(file.codes[n]), names) for n, names in named if 0 <= n < 256)
                self._compare(path, labels)
        return self.classes

    def _compare(self, path: Path, named: Iterator[tuple[int, tuple[str, ...]]]) -> None:
        known = {plain_name(name): name for name in self.classes}
        for label, names in named:
            if not 1 <= label <= len(self.classes):
                continue
            expected = self.classes[label - 1]
            plain = [plain_name(name) for name in names]
            if plain_name(expected) in plain:
                continue
            if others := [known[name] for name in plain if name in known]:
                raise ValueError(
                    f"'{path}' has the classes in another order than {self.name}: label {label} is "
                    f"{others[0]!r} there, expected {expected!r}; take the published label maps"
                )
            logger.warning("%s: label %d is %r, here %r", path, label, names[0], expected)


@dataclass(frozen=True, kw_only=True, eq=False)
class IndexedDataset:
    """The images of one list, see `base.Dataset`."""

    layout: Layout
    place: Place
    root: Path
    split: str
    folder: str  # the split that files lie under
    ids: tuple[str, ...]
    listed: int
    classes: tuple[str, ...]
    ignore: int = IGNORE
    has_objects: bool = False

    @property
    def labels(self) -> tuple[str, ...]:
        return ("background", *self.classes)

    @property
    def official_size(self) -> int | None:
        """Number of images the published list has: of several, the one that is there if any is."""
        sizes = self.layout.sizes.get(self.split)
        if sizes is None or self.classes != self.layout.classes:
            return None
        return self.listed if self.listed in sizes else sizes[0]

    def image_path(self, image_id: str) -> Path:
        return self.place.path(self.place.image, self.root, self.folder, image_id)

    def label_paths(self, image_id: str) -> tuple[Path, ...]:
        return (self.place.path(self.place.label, self.root, self.folder, image_id),)

    def load_image(self, image_id: str) -> np.ndarray:
        return load_image(self.image_path(image_id))

    def load_truth(self, image_id: str) -> GroundTruth:
        """Labels, (H, W) uint8, checked against the size of the picture.

        Raises:
            FileNotFoundError, ValueError: missing, damaged, of another size or kind, or with a
                number that its kind of file does not hold.
        """
        (path,), image = self.label_paths(image_id), self.image_path(image_id)
        labels = decode(path, self.place.codes)
        check_size(path, labels.shape, image, picture_size(image))
        return GroundTruth(labels=labels, objects=None)


def decode(path: Path, codes: np.ndarray) -> np.ndarray:
    """A label map of a file, (H, W) uint8, by a table of `Place.codes`.

    Raises:
        FileNotFoundError, ValueError: see `read_index_png`; or a number without a meaning.
    """
    numbers = read_index_png(path)
    labels = codes[numbers]
    if (wrong := labels == INVALID).any():
        valid = _ranges(np.flatnonzero(codes != INVALID).tolist())
        raise ValueError(
            f"label map '{path}' has the number {numbers[wrong][0]}, expected {valid}: "
            "it is damaged, or of another kind or order of classes"
        )
    return labels.astype(np.uint8)


def numbers_of(codes: np.ndarray) -> np.ndarray:
    """(256,) uint8: the number of each label in files of `codes`; 255 where there is none."""
    numbers = np.full(256, IGNORE, np.uint8)
    for number, label in enumerate(codes):
        if label not in (INVALID, IGNORE):
            numbers[label] = number
    return numbers


def _ranges(numbers: list[int]) -> str:
    """Sorted numbers for a message, "0…10, 12, 255"."""
    starts = [n for n in numbers if n - 1 not in numbers]
    ends = [n for n in numbers if n + 1 not in numbers]
    return ", ".join(f"{a}" if a == b else f"{a}…{b}" for a, b in zip(starts, ends, strict=True))


def read_names(path: Path) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Number and names of every line: "3: bird", a table's "3 … bird, fowl", or "bird" alone."""
    for count, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        cells = [cell.strip() for cell in re.split(r"\t|:\s", line.strip()) if cell.strip()]
        if not cells:
            continue
        numbered = len(cells) > 1 and cells[0].isdigit()
        if len(cells) > 1 and not numbered:
            continue  # a table's head
        yield (
            int(cells[0]) if numbered else count,
            tuple(name.strip() for name in re.split("[,;]", cells[-1])),
        )


def plain_name(name: str) -> str:
    """A name without what spellings differ by."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
