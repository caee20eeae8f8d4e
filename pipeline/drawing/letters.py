"""Text in pictures, in any script that an installed font has.

DejaVu Sans, which comes with matplotlib, has Latin, Greek, Cyrillic, Arabic and more. Letters that
it lacks are taken from the fonts that matplotlib finds on this machine, Noto's first; what none of
them has is drawn as a box, and said.
"""

from __future__ import annotations

import functools
import logging
import unicodedata
from pathlib import Path

from PIL import ImageDraw, ImageFont

logger = logging.getLogger(__name__)

Font = ImageFont.FreeTypeFont
_UNSEEN = ("Cc", "Cf", "Mn", "Me", "Zs", "Zl", "Zp")  # go with what is before them


@functools.cache
def font(size: int, *, bold: bool = False) -> Font:
    """DejaVu Sans, for the programs' own words; for a user's see `draw_text`."""
    return ImageFont.truetype(_dejavu(bold), size)


def draw_text(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    size: int,
    fill: tuple[int, ...],
) -> None:
    """One line of text in any script; `place` (x, y) is the middle of its left end."""
    x, y = place
    ascent, descent = font(size).getmetrics()
    for letters, part in _parts(text, size):
        if letters.path == _dejavu():
            draw.text((x, y), part, fill=fill, font=letters, anchor="lm")
        else:  # on its line, however tall it is
            draw.text((x, y + (ascent - descent) / 2), part, fill=fill, font=letters, anchor="ls")
        x += letters.getlength(part)


def text_length(text: str, size: int) -> float:
    """How many pixels wide `draw_text` makes it."""
    return sum(letters.getlength(part) for letters, part in _parts(text, size))


@functools.cache
def say_missing_letters(text: str, size: int = 15) -> None:
    """Warn, once, of the letters of `text` that no font on this machine has."""
    quiet = (*_UNSEEN, "Cs")  # half a letter of a damaged name: no script, and logs cannot hold it
    missing = [
        letter
        for letter in dict.fromkeys(text)
        if unicodedata.category(letter) not in quiet and _file_with(letter, size) is None
    ]
    if missing:
        scripts = dict.fromkeys(unicodedata.name(letter, "?").split()[0] for letter in missing)
        logger.warning(
            "no font on this machine has %s (%s): pictures show boxes there; install one, for "
            "instance of the Noto fonts", "".join(missing), ", ".join(scripts).lower(),
        )  # fmt: skip


def _parts(text: str, size: int) -> list[tuple[Font, str]]:
    """The text in parts, each with a font that has its letters."""
    parts: list[tuple[str, str]] = []
    for letter in text:
        if parts and unicodedata.category(letter) in _UNSEEN:
            file = parts[-1][0]
        else:
            file = _file_with(letter, size) or _dejavu()
        if parts and parts[-1][0] == file:
            parts[-1] = file, parts[-1][1] + letter
        else:
            parts.append((file, letter))
    return [(_load(file, size), part) for file, part in parts]


@functools.cache
def _dejavu(bold: bool = False) -> str:
    import matplotlib  # for its font file only

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return str(Path(matplotlib.get_data_path(), "fonts", "ttf", name))


@functools.cache
def _file_with(letter: str, size: int) -> str | None:
    """The first font that has a letter and can be drawn at a size; None if there is none."""
    if ord(letter) in _letters(_dejavu()):
        return _dejavu()
    return next((file for file in _installed() if _draws(file, letter, size)), None)


def _draws(file: str, letter: str, size: int) -> bool:
    try:
        return ord(letter) in _letters(file) and _load(file, size) is not None
    except OSError:  # Pillow reads no bitmaps of other sizes, as of coloured emoji
        return False


@functools.cache
def _load(file: str, size: int) -> Font:
    return ImageFont.truetype(file, size)


@functools.cache
def _letters(file: str) -> frozenset[int]:
    """The code points that a font has; none if it cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(file).get_charmap())
    except (RuntimeError, OSError, ValueError):
        return frozenset()


@functools.cache
def _installed() -> tuple[str, ...]:
    """Font files of this machine, those that suit DejaVu Sans first.

    Not matplotlib's own list, which it keeps on disk: a font installed since would be missed.
    """
    from matplotlib.font_manager import findSystemFonts

    def rank(file: str) -> tuple[bool, bool, bool, str]:
        name = Path(file).stem.lower()
        plain = "regular" in name or "-" not in name
        return not name.startswith("notosans"), not name.startswith("noto"), not plain, name

    files = [file for file in findSystemFonts() if "lastresort" not in file.lower()]
    return tuple(sorted(files, key=rank))
