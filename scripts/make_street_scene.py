"""Draw the bundled scene, examples/street_scene.jpg, and the true classes of its pixels.

    python scripts/make_street_scene.py [--output examples/street_scene.jpg]

A street put together by hand from the rendered world's glyphs; the labels go to
`street_scene_labels.png` beside it (palette: 0 background, then the classes in `NOUNS`' order).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

ROOT = Path(__file__).resolve().parents[1]
if not __package__:  # run as a file: Python looks for packages beside it
    sys.path.insert(0, str(ROOT))

from pipeline.app.options import Parser

SIZE = (448, 672)
NOUNS = ("person", "car", "bicycle", "tree", "building")
HORIZON, KERB = 250, 318
# noun, glyph of the noun, centre (x, y) in pixels, longer side, mirrored; far things first
THINGS = (
    ("building", 0, (112, 168), 172, False),
    ("building", 5, (352, 186), 136, False),
    ("building", 6, (556, 168), 164, False),
    ("tree", 0, (232, 206), 120, False),
    ("tree", 1, (452, 212), 112, False),
    ("tree", 0, (648, 216), 104, True),
    ("person", 0, (292, 262), 112, False),
    ("person", 3, (40, 290), 124, False),
    ("person", 2, (634, 288), 116, False),
    ("car", 0, (160, 346), 148, False),
    ("bicycle", 0, (404, 340), 140, False),
    ("car", 2, (556, 388), 152, True),
    ("person", 6, (282, 376), 120, True),
)


def draw() -> tuple[np.ndarray, np.ndarray]:
    """The scene, (H, W, 3) uint8 RGB, and its labels, (H, W) uint8."""
    import numpy as np

    from pipeline.world.scenes import load_world, place_sprite
    from pipeline.world.surfaces import paint_surface

    world, rng = load_world(), np.random.default_rng(26)
    height, width = SIZE
    image = np.empty((height, width, 3), np.float32)
    image[:HORIZON] = paint_surface("sky", rng, (HORIZON, width))
    image[HORIZON:KERB] = paint_surface("grass", rng, (KERB - HORIZON, width))
    image[KERB:] = paint_surface("road", rng, (height - KERB, width))
    labels = np.zeros(SIZE, np.uint8)
    for noun, glyph, centre, side, flip in THINGS:
        sprite = world.sprites[noun][glyph]
        pasted = place_sprite(sprite, SIZE, centre=centre, side=side, flip=flip)
        image = image * (1 - pasted[..., 3:]) + pasted[..., :3]
        labels[pasted[..., 3] >= 0.5] = NOUNS.index(noun) + 1
    image += 2 * rng.standard_normal(image.shape, dtype=np.float32)
    return np.clip(image + 0.5, 0, 255).astype(np.uint8), labels


def main(argv: list[str] | None = None) -> int:
    parser = Parser(__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "examples" / "street_scene.jpg")
    args = parser.parse_args(argv)

    from PIL import Image

    from pipeline.files.label_png import write_index_png

    image, labels = draw()
    args.output.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(args.output, quality=96)
    write_index_png(args.output.with_name(f"{args.output.stem}_labels.png"), labels)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
