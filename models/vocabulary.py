"""What the user wants found: classes, their synonyms, and words for everything else.

Every word is scored on its own; a class takes its best word (`models.scoring`). Background words
form one more class, after the user's: pixels it wins stay unnamed.

Shapes: K classes, Q query words.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from .list_files import read_list

logger = logging.getLogger(__name__)

# Label maps are uint8: 0 is "nothing named", class i is i + 1, and 255 means "ignore" in VOC.
MAX_CLASSES = 254


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Classes and background.

    Attributes:
        class_names: K names, as they are shown.
        words: per class, the words that stand for it, best one first; at least one.
        background: words for what is none of the classes; may be empty.
    """

    class_names: tuple[str, ...]
    words: tuple[tuple[str, ...], ...]
    background: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.class_names:
            raise ValueError("the vocabulary is empty; name at least one class")
        if len(self.class_names) > MAX_CLASSES:
            raise ValueError(
                f"the vocabulary has {len(self.class_names)} classes; "
                f"at most {MAX_CLASSES} fit in a label map"
            )
        if len(self.words) != len(self.class_names):
            raise ValueError(
                f"{len(self.class_names)} class names need as many groups of words, "
                f"got {len(self.words)}"
            )
        _refuse_repeats(self.class_names, "class {} is given twice; remove one")
        for name, words in zip(self.class_names, self.words, strict=True):
            if isinstance(words, str) or not words:
                raise ValueError(f"class '{name}' needs a tuple of words, got {words!r}")
            _refuse_repeats(words, f"word {{}} is given twice for class '{name}'; remove one")
        _refuse_repeats(self.background, "background word {} is given twice; remove one")

    @classmethod
    def parse(cls, entries: Sequence[str], background: Sequence[str] = ()) -> Vocabulary:
        """Read what a user types.

        Args:
            entries: class names; "sofa,couch" names a class and its synonyms; "@file" stands for
                the lines of a UTF-8 file, one class a line (`#` starts a comment).
            background: words for everything else. Those that the user also names as a class or
                synonym are left out: the user's classes win.

        Raises:
            FileNotFoundError: an @file does not exist.
            ValueError: nothing named, blank words, repeated names, or an unreadable @file.
        """
        for given, what in ((entries, "vocabulary"), (background, "background")):
            if isinstance(given, str):
                raise ValueError(f"the {what} must be a list of words, got the string {given!r}")
        lines: list[str] = []
        for entry in entries:
            if isinstance(entry, str) and entry.strip().startswith("@"):
                lines += _read_lines(entry.strip()[1:])
            else:
                lines.append(entry)
        words = tuple(_split(line) for line in lines)
        own = {word.casefold() for group in words for word in group}
        others = tuple(_clean(word) for word in background)
        if dropped := [word for word in others if word.casefold() in own]:
            logger.info("not background, as the vocabulary names them: %s", ", ".join(dropped))
        vocabulary = cls(
            class_names=tuple(group[0] for group in words),
            words=words,
            background=tuple(word for word in others if word.casefold() not in own),
        )
        _warn_shared(words)
        return vocabulary

    @property
    def query_words(self) -> tuple[str, ...]:
        """All Q words: those of the classes in their order, then the background's."""
        return tuple(word for group in (*self.words, self.background) for word in group)

    @property
    def word_class(self) -> tuple[int, ...]:
        """The class index of every query word; the background's is K."""
        groups = (*self.words, self.background)
        return tuple(index for index, group in enumerate(groups) for _ in group)

    @property
    def background_index(self) -> int | None:
        """K, or None when there are no background words."""
        return len(self.class_names) if self.background else None

    def __len__(self) -> int:
        return len(self.class_names)


def _clean(word: object) -> str:
    if not isinstance(word, str):
        raise ValueError(f"words must be strings, got {word!r}")
    if any("\ud800" <= c <= "\udfff" for c in word):  # bytes that the shell could not decode
        raise ValueError(f"word {word!r} is no valid text; type it, or its file, in UTF-8")
    return " ".join(word.split())


def _split(entry: object) -> tuple[str, ...]:
    words = tuple(_clean(word) for word in entry.split(",")) if isinstance(entry, str) else ()
    if not words or not all(words):
        raise ValueError(f'blank word in vocabulary entry {entry!r}; write e.g. "sofa,couch"')
    return words


def _read_lines(name: str) -> list[str]:
    lines = read_list(name, what="vocabulary file", entry="class")
    for number, line in lines:
        if line.startswith("@"):
            raise ValueError(f"'{name}' line {number}: a vocabulary file cannot name another one")
        try:
            _split(line)
        except ValueError as error:
            raise ValueError(f"'{name}' line {number}: {error}") from None
    return [line for _, line in lines]


def _refuse_repeats(words: Sequence[str], message: str) -> None:
    seen: set[str] = set()
    for word in words:
        if not isinstance(word, str) or not word.strip():
            raise ValueError(f"words must be non-blank strings, got {word!r}")
        if word.casefold() in seen:
            raise ValueError(message.format(f"'{word}'"))
        seen.add(word.casefold())


def _warn_shared(groups: Sequence[tuple[str, ...]]) -> None:
    owner: dict[str, str] = {}
    for group in groups:
        for word in group:
            first = owner.setdefault(word.casefold(), group[0])
            if first != group[0]:
                logger.warning(
                    "'%s' belongs to '%s' and '%s': the two share its probability, and where it "
                    "decides, '%s' wins because it comes first",
                    word, first, group[0], first,
                )  # fmt: skip
