"""What the user wants found: classes, their synonyms, and words for everything else.

Every word is scored on its own; a class takes its best word (`models.scoring`). After the user's
classes come those that are not wanted, which compete like them and are dropped in the end, and last
the background words, which form one more class: pixels it wins stay unnamed.

Shapes: K classes, N classes that are not wanted, Q query words.
"""

from __future__ import annotations

import dataclasses
import difflib
import html
import logging
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

# What CLIP's tokenizer takes apart before all else: contractions, letters, single digits, signs.
_PIECES = r"'(?:s|t|re|ve|m|ll|d)|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"

# What users write: a list of entries, or a dict of names and their synonyms.
Entries = Sequence[str] | Mapping[str, Sequence[str] | str]
# Label maps are uint8, or uint16: 0 is "nothing named", class i is i + 1, the highest "ignore".
MAX_CLASSES = 2**16 - 2


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Classes and background.

    Attributes:
        class_names: K names, as they are shown.
        words: per class, the words that stand for it, best one first; at least one.
        background: words for what is none of the classes; () for none, None where whoever uses the
            vocabulary may say: `Segmenter.segment` takes the protocol's.
        not_words: N groups of words, each a class that competes and is dropped from the result.
        thresholds: per class its least confidence, None for everybody's; () if all are None.
    """

    class_names: tuple[str, ...]
    words: tuple[tuple[str, ...], ...]
    background: tuple[str, ...] | None = None
    not_words: tuple[tuple[str, ...], ...] = ()
    thresholds: tuple[float | None, ...] = ()

    def __post_init__(self) -> None:
        if not self.class_names:
            raise ValueError("the vocabulary is empty; name at least one class")
        if (count := len(self.class_names) + len(self.not_words)) > MAX_CLASSES:
            raise ValueError(
                f"the vocabulary has {count} classes; at most {MAX_CLASSES} fit in a label map"
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
        _refuse_repeats(self.background or (), "background word {} is given twice; remove one")
        _refuse_repeats(_flat(self.not_words), "not-word {} is given twice; remove one")
        wanted = {word_key(word) for word in _flat(self.words)}
        for word in _flat(self.not_words):
            if word_key(word) in wanted:
                raise ValueError(f"'{word}' is both wanted and not wanted; remove one")
        if self.thresholds and len(self.thresholds) != len(self.class_names):
            raise ValueError(
                f"{len(self.class_names)} classes need as many thresholds or none, "
                f"got {len(self.thresholds)}"
            )
        for name, value in zip(self.class_names, self.thresholds, strict=bool(self.thresholds)):
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"the threshold of '{name}' must be between 0 and 1, got {value}")

    @classmethod
    def parse(
        cls,
        entries: Entries,
        background: Sequence[str] = (),
        *,
        not_words: Entries = (),
        thresholds: Mapping[str, float] | None = None,
    ) -> Vocabulary:
        """Read what a user types.

        In all lists a comma separates words, and "@file" stands for the lines of a UTF-8 file (`#`
        starts a comment). Everything else, quotes too, is part of a word. A word of two classes
        counts for the first, with a warning.

        Args:
            entries: class names; "sofa,couch" names a class and its synonyms, and so does the
                item "sofa": ["couch"] of a dict.
            background: words for everything else. Those that the user also names, wanted or not,
                are left out: the user's classes win.
            not_words: classes that compete but are no part of the result, written as `entries`.
            thresholds: class name → its least confidence, where it is not that of all.

        Raises:
            FileNotFoundError: an @file does not exist.
            ValueError: nothing named, blank words, repeated names, an unreadable @file, a word
                that is both wanted and not, a class whose words are all of earlier ones, a
                threshold for no class, or a single entry that looks like a list of classes.
        """
        words = _groups(entries, "vocabulary")
        others = _groups(not_words, "not-words")
        vocabulary = cls(
            class_names=tuple(group[0] for group in words),
            words=words,
            not_words=others,
            thresholds=_per_class(thresholds, words) if words and thresholds else (),
        ).with_background(background)
        return dataclasses.replace(vocabulary, words=_own_words(words))

    def with_background(self, background: Sequence[str]) -> Vocabulary:
        """The same with these background words, without those that it names itself.

        Raises:
            ValueError, FileNotFoundError: see `parse`.
        """
        own = {word_key(word) for word in _flat((*self.words, *self.not_words))}
        rest = tuple(_flat(_groups(background, "background")))
        if dropped := [word for word in rest if word_key(word) in own]:
            logger.info("not background, as the vocabulary names them: %s", ", ".join(dropped))
        kept = tuple(word for word in rest if word_key(word) not in own)
        return dataclasses.replace(self, background=kept)

    @property
    def query_words(self) -> tuple[str, ...]:
        """All Q words: of the classes in their order, of those not wanted, of the background."""
        return tuple(_flat((*self.words, *self.not_words, self.background or ())))

    @property
    def word_class(self) -> tuple[int, ...]:
        """The class index of every query word: 0…K-1, not wanted K…K+N-1, background K + N."""
        groups = (*self.words, *self.not_words, self.background or ())
        return tuple(index for index, group in enumerate(groups) for _ in group)

    @property
    def background_index(self) -> int | None:
        """K + N, or None when there are no background words."""
        return len(self.words) + len(self.not_words) if self.background else None

    @property
    def competitors(self) -> tuple[str, ...]:
        """Names of all classes that are scored, in the order of their indices."""
        rest = ("background",) if self.background else ()
        return (*self.class_names, *(group[0] for group in self.not_words), *rest)

    @property
    def own_thresholds(self) -> dict[str, float]:
        """Class name → its least confidence, of those that have one."""
        pairs = zip(self.class_names, self.thresholds, strict=False)
        return {name: value for name, value in pairs if value is not None}

    def confidences(self, default: float) -> float | tuple[float, ...]:
        """The least confidence of each of the `competitors`; `default` alone if all have it."""
        if not self.thresholds:
            return default
        own = tuple(default if value is None else value for value in self.thresholds)
        return own + (default,) * (len(self.competitors) - len(own))

    def __len__(self) -> int:
        return len(self.class_names)


def parse_thresholds(entries: Iterable[str]) -> dict[str, float]:
    """Class name → its least confidence, from entries "CLASS=SHARE"; the last "=" counts.

    Raises:
        ValueError: an entry of another form, or a name given twice.
    """
    thresholds: dict[str, float] = {}
    for entry in entries:
        name, _, value = entry.rpartition("=")
        if name in thresholds:
            raise ValueError(f"class '{name}' has two thresholds; remove one")
        try:
            thresholds[name] = float(value if name else "")
        except ValueError:
            raise ValueError(
                f"threshold {entry!r} is not CLASS=SHARE; write person=0.6 car=0.3"
            ) from None
    return thresholds


def read_list(name: str, *, what: str, entry: str) -> list[tuple[int, str]]:
    """What "@file" stands for: its lines that say something, stripped, with numbers from 1.

    Blank lines and those that start with `#` say nothing.

    Args:
        name: the file's, without "@".
        what: the file is called so in messages: "vocabulary file".
        entry: what a line holds: "class".

    Raises:
        FileNotFoundError: no such file.
        ValueError: no name, a folder, not UTF-8, or a file that says nothing.
    """
    path = Path(os.path.expanduser(name))  # not Path's: RuntimeError if there is no such user
    if not name.strip() or path.is_dir():
        raise ValueError(f"'@{name}' must name a text file with one {entry} per line")
    if not path.exists():
        raise FileNotFoundError(f"{what} not found: '{name}' (from '@{name}')")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{what} '{name}' is not UTF-8 text; save it as UTF-8") from error
    # Not `splitlines`: names of files may hold the rarer signs that it takes for ends of lines.
    # A byte order mark begins a file, and stays where files were joined: a line begins there, too.
    parts = (
        (number, part.strip())
        for number, line in enumerate(text.split("\n"), start=1)
        for part in line.split("\ufeff")
    )
    found = [(number, part) for number, part in parts if part and not part.startswith("#")]
    if not found:
        raise ValueError(f"{what} '{name}' names no {entry}; write one per line")
    return found


def _groups(entries: Entries, what: str) -> tuple[tuple[str, ...], ...]:
    """The words of every entry, of every line of an @file and of every item of a dict."""
    if isinstance(entries, str):
        raise ValueError(f"the {what} must be a list of words, got the string {entries!r}")
    if isinstance(entries, set | frozenset) or not isinstance(entries, Iterable):
        raise ValueError(
            f"the {what} must be a list of words, whose order is that of the classes, got "
            f"{entries!r}"
        )
    if isinstance(entries, Mapping):
        return tuple(_item(name, synonyms, what) for name, synonyms in entries.items())
    lines: list[str] = []
    for entry in entries:
        if isinstance(entry, str) and entry.strip().startswith("@"):
            lines += _read_lines(entry.strip()[1:])
        else:
            lines.append(entry)
    if what == "vocabulary" and len(lines) == 1:
        _refuse_list(lines[0])
    return tuple(_split(line, what) for line in lines)


def _refuse_list(entry: object) -> None:
    """Ask what the only entry means if it looks like a list of classes: "person, car. tree"."""
    if not isinstance(entry, str):
        return
    parts = [part for part in re.split(r"[,;]\s+|\n", entry.strip()) if part.strip(" ,;")]
    if len(parts) < 2:  # "person. car." but not "St. Bernard"
        sentences = re.split(r"\.(?:\s+|$)", entry.strip())
        parts = [part for part in sentences if part.strip()] if len(sentences) > 2 else []
    if len(parts) > 1:
        names = [" ".join(part.strip(" ,;").split()) for part in parts]
        apart = " ".join(f'"{name}"' if " " in name else name for name in names)
        raise ValueError(
            f"{entry!r} is one entry: for {len(names)} classes write {apart} (in Python {names}), "
            f'for one class and its synonyms "{",".join(names)}"'
        )


def _item(name: object, synonyms: object, what: str) -> tuple[str, ...]:
    """The words of a dict's item, the name first; each is one word, commas or not."""
    words = [synonyms] if isinstance(synonyms, str) else synonyms
    if isinstance(words, set | frozenset) or not isinstance(words, Iterable):
        raise ValueError(f"the {what} entry {name!r} needs a list of synonyms, got {synonyms!r}")
    group = [name, *words]
    if not all(isinstance(word, str) and word.strip() for word in group):
        raise ValueError(f"words must be non-blank strings, got the {what} entry {group!r}")
    cleaned = [_clean(str(word)) for word in group]
    return (cleaned[0], *(w for w in cleaned[1:] if word_key(w) != word_key(cleaned[0])))


def _split(entry: object, what: str) -> tuple[str, ...]:
    if not isinstance(entry, str):
        raise ValueError(f"words must be strings, got the {what} entry {entry!r}")
    words = tuple(_clean(word) for word in entry.split(","))
    if not all(words):
        raise ValueError(
            f'blank word in {what} entry {entry!r}; write e.g. "sofa,couch", and classes without '
            "commas: person car"
        )
    return words


def _clean(word: str) -> str:
    """One space where there are several, and one spelling of every letter with accents (NFC)."""
    if any("\ud800" <= c <= "\udfff" for c in word):  # bytes that the shell could not decode
        raise ValueError(f"word {word!r} is no valid text; type it, or its file, in UTF-8")
    return unicodedata.normalize("NFC", " ".join(word.split()))


def word_key(word: str) -> str:
    """What tells a word from others, as CLIP's tokenizer sees it.

    It mends text (full-width letters, curly quotes, ligatures), resolves HTML's entities twice,
    takes no notice of case, and parts letters, digits and other signs, so that "t-shirt" is
    "t - shirt"; here "ß" is "ss" as well.
    """
    if not (word.isascii() and word.isprintable() and "&" not in word):  # nothing to mend
        import ftfy

        word = html.unescape(html.unescape(ftfy.fix_text(word)))
    import regex  # as ftfy, one of open_clip's own requirements

    return " ".join(regex.findall(_PIECES, word.casefold()))


def _flat(groups: Sequence[tuple[str, ...]]) -> Iterator[str]:
    return (word for group in groups for word in group)


def _per_class(
    thresholds: Mapping[str, float], groups: Sequence[tuple[str, ...]]
) -> tuple[float | None, ...]:
    """The thresholds in the order of the classes, None where none is given."""
    names = {word_key(word): group[0] for group in reversed(groups) for word in group}
    values: dict[str, float | None] = {word_key(group[0]): None for group in groups}
    for name, value in thresholds.items():
        key = word_key(_clean(name))
        if key not in values:
            (word,) = difflib.get_close_matches(key, names, n=1, cutoff=0)
            raise ValueError(f"no class '{name}' for a threshold; the nearest is '{names[word]}'")
        if values[key] is not None:
            raise ValueError(f"class '{name}' has two thresholds; remove one")
        values[key] = value
    return tuple(values.values())


def _read_lines(name: str) -> list[str]:
    lines = read_list(name, what="vocabulary file", entry="class")
    for number, line in lines:
        if line.startswith("@"):
            raise ValueError(f"'{name}' line {number}: a vocabulary file cannot name another one")
        if len(line) > 1 and line[0] == line[-1] == '"':
            raise ValueError(f"'{name}' line {number}: remove the quotes, a line needs none")
        try:
            _split(line, "vocabulary")
        except ValueError as error:
            raise ValueError(f"'{name}' line {number}: {error}") from None
    return [line for _, line in lines]


def _refuse_repeats(words: Iterable[str], message: str) -> None:
    seen: set[str] = set()
    for word in words:
        if not isinstance(word, str) or not word.strip():
            raise ValueError(f"words must be non-blank strings, got {word!r}")
        if word_key(word) in seen:
            raise ValueError(message.format(f"'{word}'"))
        seen.add(word_key(word))


def _own_words(groups: Sequence[tuple[str, ...]]) -> tuple[tuple[str, ...], ...]:
    """The groups without the words of earlier ones, which a user is told of.

    Scored for both, such a word would halve its own probability, and neither class be confident.

    Raises:
        ValueError: nothing is left of a group.
    """
    owner: dict[str, str] = {}
    own = []
    for group in groups:
        name = group[0]
        first = [owner.setdefault(word_key(word), name) for word in group]
        own.append(tuple(word for word, of in zip(group, first, strict=True) if of == name))
        if not own[-1]:
            raise ValueError(
                f"class '{name}' has no word of its own, all are of '{first[0]}'; remove it, or "
                "add a word"
            )
        for word, of in zip(group, first, strict=True):
            if of != name:
                logger.warning(
                    "'%s' belongs to '%s' and '%s': it counts for '%s', which comes first",
                    word, of, name, of,
                )  # fmt: skip
    return tuple(own)
