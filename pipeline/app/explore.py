"""What a page, or any other place to click, does with a segmenter: ask, ask again, point, save.

Several people may ask at once. Each has a visit of their own, which keeps what is costly: the two
networks' views of the image, and the dense maps of the words. Another confidence, of all classes or
of one, only makes the masks anew, another opacity only the picture.

Points are (x, y) pixels, sizes (H, W). Shapes: H×W pixels of the image, h×w of a drawing.
"""

from __future__ import annotations

import dataclasses
import html
import re
import shlex
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from models.dense import DenseResult, EncodedImage
from models.sam2_masks import Sam2Masks
from models.vocabulary import Vocabulary, parse_thresholds

from ..drawing.overlay import OPACITY, draw_overlay
from ..drawing.palette import class_colors
from ..drawing.picture import fit, save_picture
from ..found import say_what_is_missing
from ..result import Segmentation
from ..segmenter import Segmenter
from .compare import ARMS, with_upsampler

DRAWING = (660, 720)  # a drawing fits in here, (h, w): its letters stay readable at half the page
KEPT = 2**31  # bytes of all visits


def parse_words(text: str) -> list[str]:
    """The entries of a line typed as on the command line: person "traffic light" sofa,couch.

    A comma before a space parts entries, too; in a line of such commas without quotation marks
    nothing else does: person, traffic light, sofa,couch.

    Raises:
        ValueError: an open quotation mark, a stray comma, or a file of the server.
    """
    try:
        if re.search(r"\S,\s", text) and not re.search("[\"']", text):
            words = re.split(r",\s+", text.strip())
            words[-1] = words[-1].removesuffix(",")
        else:
            words = [w if w == "," else w.removesuffix(",") for w in shlex.split(text)]
    except ValueError as error:
        raise ValueError(
            f"{text.strip()}: a quotation mark is not closed; write "
            '"traffic light", or "driver\'s seat"'
        ) from error
    for word in words:
        if word.strip().startswith("@"):
            raise ValueError(f"{word}: the page reads no files; type the words themselves")
        if not all(part.strip() for part in word.split(",")):
            raise ValueError(
                f"{word!r}: put spaces between classes (person car), and commas without spaces "
                "between names of the same thing (sofa,couch)"
            )
    return words


@dataclass(frozen=True)
class Question:
    """An image and words, and who asks."""

    visitor: str  # nobody else gets what is kept for them
    image: str  # file
    words: tuple[str, ...]
    not_words: tuple[str, ...] = ()
    thresholds: Mapping[str, float] = field(default_factory=dict)  # class name → least confidence

    @classmethod
    def typed(
        cls, visitor: str, image: str, words: str, not_words: str = "", thresholds: str = ""
    ) -> Question:
        """From the lines of the page's fields; thresholds as "person=0.6 car=0.3".

        Raises:
            ValueError: see `parse_words` and `parse_thresholds`; or nothing is to be found.
        """
        wanted = tuple(parse_words(words))
        if not wanted:
            raise ValueError("type at least one word for what is to be found, such as: person car")
        others = tuple(parse_words(not_words))
        return cls(visitor, image, wanted, others, parse_thresholds(parse_words(thresholds)))


@dataclass(eq=False)
class _Visit:
    """What is kept of one visitor's last question."""

    question: Question
    words: Vocabulary
    encoded: EncodedImage
    sam: Sam2Masks  # its own, so that no other visitor's image takes this one's place
    dense: dict[str, DenseResult] = field(default_factory=dict)  # by arm
    results: dict[str, tuple[float, Segmentation]] = field(default_factory=dict)  # by arm

    @property
    def nbytes(self) -> int:
        """Of what grows with the image."""
        size = self.encoded.image.nbytes + self.encoded.windows.image.nbytes
        size += sum(dense.probs.nbytes + dense.labels.nbytes for dense in self.dense.values())
        return size + sum(result.masks.nbytes for _, result in self.results.values())


class Explorer:
    """Answers visitors' questions with one segmenter, without and with LoftUp.

    Args:
        segmenter: loaded with `use_loftup=True`.
        kept: bytes; beyond, the visits that asked longest ago are forgotten (all but the last).
    """

    def __init__(self, segmenter: Segmenter, kept: int = KEPT) -> None:
        self.arms = {name: with_upsampler(segmenter, name) for name in ARMS}
        self.confidence = segmenter.config.min_confidence  # to begin with
        self.kept = kept
        self._visits: OrderedDict[str, _Visit] = OrderedDict()
        self._lock = threading.Lock()  # all share the networks and the words they remember

    def look(
        self, question: Question, arm: str, confidence: float
    ) -> tuple[np.ndarray, Segmentation]:
        """What one arm finds.

        Args:
            question: image and words.
            arm: one of `pipeline.app.compare.ARMS`.
            confidence: least class probability of a prompt region, 0…1, of the classes that have
                no threshold of their own.

        Returns:
            The image (H, W, 3) uint8 RGB, and its masks.

        Raises:
            ValueError, FileNotFoundError: an image or words that cannot be used.
        """
        with self._lock:
            visit = self._visit(question)
            segmenter = self.arms[arm]
            if arm not in visit.dense:
                visit.dense[arm] = segmenter.dense.dense(visit.encoded, visit.words)
            if arm not in visit.results or visit.results[arm][0] != confidence:
                own = segmenter.with_config(sam=visit.sam, min_confidence=confidence)
                name = Path(question.image).name
                found = own.masks(visit.encoded, visit.dense[arm], visit.words, image_path=name)
                visit.results[arm] = confidence, found
            self._forget()
            return visit.encoded.image, visit.results[arm][1]

    def leave(self, visitor: str) -> None:
        """Forget what is kept for a visitor, if anything."""
        with self._lock:
            self._visits.pop(visitor, None)

    def _visit(self, question: Question) -> _Visit:
        segmenter = self.arms[ARMS[0]]
        visit = self._visits.get(question.visitor)
        if visit is None or visit.question != question:
            words = segmenter.vocabulary(  # bad words are refused before the long work
                question.words, not_words=question.not_words, thresholds=question.thresholds
            )
            if visit is None or visit.question.image != question.image:
                encoded = segmenter.dense.encode(question.image)
                visit = _Visit(question, words, encoded, segmenter.networks.own_sam())
            elif _scored(visit.words) != _scored(words):
                visit.dense = {}
            visit.question, visit.words, visit.results = question, words, {}
        self._visits[question.visitor] = visit
        self._visits.move_to_end(question.visitor)
        return visit

    def _forget(self) -> None:
        total = sum(visit.nbytes for visit in self._visits.values())
        while total > self.kept and len(self._visits) > 1:
            _, oldest = self._visits.popitem(last=False)
            total -= oldest.nbytes


def _scored(words: Vocabulary) -> Vocabulary:
    """What dense maps depend on: all but the thresholds."""
    return dataclasses.replace(words, thresholds=())


def draw(
    image: np.ndarray,
    result: Segmentation,
    opacity: float = OPACITY,
    selected: int | None = None,
) -> np.ndarray:
    """(H, W, 3) -> (h, w, 3) uint8: the image with its masks, for the page."""
    size = fit(result.size, DRAWING)
    return draw_overlay(image, result, size, opacity=opacity, selected=selected)


def mask_at(result: Segmentation, point: tuple[float, float]) -> int | None:
    """The mask that a click at (x, y) of the drawing means, None where there is none.

    Of several masks there, those of the colour that is seen come first, and then the smallest.
    """
    height, width = fit(result.size, DRAWING)
    x = int(np.clip((point[0] + 0.5) * result.size[1] / width, 0, result.size[1] - 1))
    y = int(np.clip((point[1] + 0.5) * result.size[0] / height, 0, result.size[0] - 1))
    seen = int(result.label_map[y, x]) - 1
    hit = np.flatnonzero(result.masks[:, y, x])
    return min(
        hit.tolist(),
        key=lambda i: (result.class_ids[i] != seen, int(result.masks[i].sum())),
        default=None,
    )


def describe(result: Segmentation, index: int) -> str:
    """Class, score and prompt points of a mask as HTML."""
    points = ", ".join(f"({x:.0f}, {y:.0f})" for x, y in result.points[index])
    source = {
        "sam2": "SAM 2",
        "region": "CLIP's own region: no mask of SAM 2 fitted it",
    }[result.sources[index]]
    rows = {
        "score": f"{result.scores[index]:.2f} (IoU that SAM 2 predicts)",
        "confidence": f"{result.confidences[index]:.2f} (mean class probability)",
        f"prompt point{'s' * (len(result.points[index]) > 1)} (x, y)": f"{points} pixels",
        "area": f"{int(result.masks[index].sum())} pixels",
        "mask from": source,
    }
    lines = "".join(f"<tr><td>{key}</td><td>{value}</td></tr>" for key, value in rows.items())
    return f"<h4>{_chip(result, int(result.class_ids[index]))}</h4><table>{lines}</table>"


def summary(result: Segmentation) -> str:
    """How many masks of which class, as HTML."""
    limits = f"<br>{html.escape(result.limits)}" if result.limits else ""
    if not len(result):
        best = ": ".join(("Nothing found", html.escape(say_what_is_missing(result)))).rstrip(": ")
        return f"{best}. Lower the confidence, or try other words.{limits}"
    counts = np.bincount(result.class_ids, minlength=len(result.class_names))
    chips = [
        f'<span style="margin-right: 1em">{_chip(result, i)}&nbsp;{count}</span> '
        for i, count in enumerate(counts)
        if count
    ]
    word = "mask" if len(result) == 1 else "masks"
    missing = [html.escape(n) for n, c in zip(result.class_names, counts, strict=True) if not c]
    note = f"not found: {', '.join(missing)}" if missing else ""
    return f"<b>{len(result)} {word}</b> &ensp; {''.join(chips)}{note}{limits}"


def _chip(result: Segmentation, class_id: int) -> str:
    """A dot in the class's colour and its name, which a user typed."""
    red, green, blue = class_colors()[class_id].tolist()
    name = html.escape(result.class_names[class_id])
    return f'<span style="color:rgb({red},{green},{blue})">&#9679;</span>&nbsp;{name}'


def save_files(folder: Path, name: str, image: np.ndarray, result: Segmentation) -> list[str]:
    """Write NAME.png, NAME.json and NAME_labels.png as the command line does; their paths."""
    files = [folder / f"{name}.png", folder / f"{name}.json", folder / f"{name}_labels.png"]
    save_picture(files[0], image, result)
    result.save_json(files[1])
    result.save_label_map(files[2])
    return [str(file) for file in files]
