"""Draw the rendered world's sprite sheet from a Noto Color Emoji font.

    python scripts/make_world.py --font /usr/share/fonts/truetype/noto/NotoColorEmoji.ttf

writes `pipeline/world/data/sprites.png` and `sprites.json` (glyph → [top, left, height, width]).
Only needed after a change of `nouns.txt`; the sheet is part of the repository.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parents[1]
if not __package__:  # run as a file: Python looks for packages beside it
    sys.path.insert(0, str(ROOT))

SHEET_WIDTH = 2720
FONT_SIZE = 109  # the one size at which this bitmap font can be drawn


def draw_glyph(font: ImageFont.FreeTypeFont, glyph: str) -> Image.Image:
    """One glyph, cropped to its visible part, RGBA.

    Raises:
        ValueError: the font has no single picture for it.
    """
    import numpy as np

    canvas = Image.new("RGBA", (320, 160))
    ImageDraw.Draw(canvas).text((8, 8), glyph, font=font, embedded_color=True)
    rows, columns = np.nonzero(np.asarray(canvas)[..., 3])
    if not len(rows) or columns.max() - columns.min() > 140:
        raise ValueError(f"the font has no single picture for {glyph!r}: use another font or glyph")
    return canvas.crop((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))


def main(argv: list[str] | None = None) -> int:
    from pipeline.app.options import Parser

    parser = Parser(__doc__)
    parser.add_argument("--font", required=True, help="NotoColorEmoji.ttf (bitmap version)")
    parser.add_argument("--output", type=Path, default=ROOT / "pipeline" / "world" / "data")
    args = parser.parse_args(argv)
    from pipeline.world.scenes import read_names

    font = ImageFont.truetype(args.font, FONT_SIZE)
    glyphs = [g for _, row in read_names(args.output / "nouns.txt") for g in row]
    boxes, pictures = {}, []
    top = left = shelf = 0
    for glyph in dict.fromkeys(glyphs):
        picture = draw_glyph(font, glyph)
        if left + picture.width > SHEET_WIDTH:
            top, left, shelf = top + shelf, 0, 0
        boxes[glyph] = (top, left, picture.height, picture.width)
        pictures.append(picture)
        left, shelf = left + picture.width, max(shelf, picture.height)
    sheet = Image.new("RGBA", (SHEET_WIDTH, top + shelf))
    for picture, (y, x, _, _) in zip(pictures, boxes.values(), strict=True):
        sheet.paste(picture, (x, y))
    sheet.save(args.output / "sprites.png", optimize=True)
    text = json.dumps(boxes, ensure_ascii=False, indent=0)
    (args.output / "sprites.json").write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
