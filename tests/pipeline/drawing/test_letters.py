"""Names in any script are drawn with an installed font that has them."""

import logging

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder  # comes with matplotlib
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image, ImageDraw

from pipeline.drawing import letters
from pipeline.drawing.letters import draw_text, font, say_missing_letters, text_length


def square_font(path, letter: str, width: int) -> str:
    """A font that has one letter, a full square above the base line, `width` of 1000 wide."""
    pen = TTGlyphPen(None)
    for number, place in enumerate([(0, 0), (0, 800), (800, 800), (800, 0)]):
        (pen.lineTo if number else pen.moveTo)(place)
    pen.closePath()
    square, empty = pen.glyph(), TTGlyphPen(None).glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "square"])
    builder.setupCharacterMap({ord(letter): "square"})
    builder.setupGlyf({".notdef": empty, "square": square})
    builder.setupHorizontalMetrics({".notdef": (500, 0), "square": (width, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Square", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return str(path)


@pytest.fixture
def installed(monkeypatch):
    """Sets the fonts of the machine."""

    def install(*files: str) -> None:
        monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: list(files))
        for cached in (letters._installed, letters._file_with, say_missing_letters):
            cached.cache_clear()

    yield install
    for cached in (letters._installed, letters._file_with, say_missing_letters):
        cached.cache_clear()


def drawn(text: str, size: int = 20) -> np.ndarray:
    picture = Image.new("L", (200, 40), 255)
    draw_text(ImageDraw.Draw(picture), (10, 20), text, size, (0,))
    return np.asarray(picture) < 128


def test_a_letter_that_dejavu_lacks_is_drawn_with_a_font_that_has_it(installed, tmp_path):
    installed()
    box = drawn("犬")
    installed(square_font(tmp_path / "a.ttf", "犬", 1000))
    square = drawn("犬")
    assert square.sum() == 16 * 16  # 800 of 1000 at 20 pixels, full
    assert not np.array_equal(box, square)
    assert text_length("犬", 20) == 20
    # On the line of the other letters, and between them.
    x = 10 + round(font(20).getlength("ab"))
    both, plain = drawn("ab犬c"), drawn("ab")
    assert both[:, x : x + 16].sum() == 16 * 16
    bottom = np.flatnonzero(plain.any(axis=1))[-1]
    assert abs(np.flatnonzero(both[:, x : x + 16].any(axis=1))[-1] - bottom) <= 1
    assert text_length("ab犬c", 20) == font(20).getlength("ab") + 20 + font(20).getlength("c")


def test_noto_comes_first_and_what_is_no_font_last(installed, tmp_path):
    wide = square_font(tmp_path / "a.ttf", "犬", 2000)
    noto = square_font(tmp_path / "NotoSansSquare-Regular.ttf", "犬", 1000)
    (tmp_path / "0.ttf").write_bytes(b"no font")
    installed(str(tmp_path / "0.ttf"), wide, noto)
    assert text_length("犬", 20) == 20
    installed(str(tmp_path / "0.ttf"), wide)
    assert text_length("犬", 20) == 40


def test_words_of_dejavu_look_for_no_other_font(installed, monkeypatch):
    installed()
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", None)  # would fail
    for text in ("Straße 3.5 %", "кот", "γάτα", "ق", ""):
        assert text_length(text, 15) == font(15).getlength(text)
        say_missing_letters(text)


def test_what_no_font_has_is_said_once_by_script(installed, caplog):
    installed()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            say_missing_letters("cat 犬猫犬 कुत्ता")
    (record,) = caplog.records
    said = record.getMessage()
    assert "犬猫" in said and "(cjk, devanagari)" in said and "cat" not in said
    assert drawn("犬").any()  # a box


def test_half_letters_are_not_said(caplog):
    """Of a damaged file name: a log in UTF-8 could not be written."""
    letters.say_missing_letters("b\udce9")
    assert not caplog.records
