"""The bundled scene, which the programs segment without --image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np


class BundledScene(NamedTuple):
    path: Path
    words: tuple[str, ...]


SCENE = BundledScene(
    path=Path(__file__).resolve().parents[1] / "examples" / "street_scene.jpg",
    words=("person", "car", "bicycle", "tree", "building"),
)
_SIZE = (448, 672)  # of any other size, an image is another


def is_scene(image: np.ndarray) -> bool:
    """Whether an image (H, W, 3) uint8 RGB is the bundled scene, wherever it was read from."""
    from models.images import load_image

    if image.shape[:2] != _SIZE or not SCENE.path.is_file():
        return False
    return bool((load_image(SCENE.path) == image).all())
