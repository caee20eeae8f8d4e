"""Label maps as PNG files whose pixel values, not colours, are the labels, as VOC's are.

Shapes: H×W image pixels.
"""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from ..drawing.palette import voc_palette
from .atomic import write_atomically

_EXPECTED = "a palette or grey PNG of 8 bits whose values are the labels, as VOC's own"
_KINDS = {0: "grey", 2: "colour", 3: "palette", 4: "grey with alpha", 6: "colour with alpha"}
# What Pillow raises on damaged files.
_DAMAGED = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error,
    Image.DecompressionBombError,
)  # fmt: skip


def read_index_png(path: str | Path) -> np.ndarray:
    """The values of a palette or 8-bit grey PNG, (H, W) uint8; the colours do not matter.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a PNG, damaged, or of a kind that has no such values.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"label map not found: '{path}'; expected {_EXPECTED}")
    data = path.read_bytes()
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        what = "empty (0 bytes)" if not data else "not a PNG"
        raise ValueError(f"label map '{path}' is {what}; expected {_EXPECTED}")
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            image.verify()  # checksums, which decoding alone ignores
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            values = np.array(image)
    except _DAMAGED as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"label map '{path}' is truncated or damaged ({reason}); copy or download it again"
        ) from error
    # Pillow does not tell, and stretches grey values of fewer bits to 0…255 (not palette indices).
    bits, kind = data[24], data[25]  # of the file's header
    if kind != 3 and (bits, kind) != (8, 0):
        what = f"a {_KINDS[kind]} PNG of {bits} bits"
        raise ValueError(f"label map '{path}' is {what}; expected {_EXPECTED}")
    return values


def write_index_png(path: str | Path, values: np.ndarray) -> None:
    """Write (H, W) uint8 values as a PNG with VOC's palette, whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    image = Image.fromarray(values)
    image.putpalette(voc_palette().tobytes())  # mode L becomes P, values stay
    data = io.BytesIO()
    image.save(data, format="PNG")
    write_atomically(path, data.getvalue())


def label_dtype(classes: int) -> type[np.uint8] | type[np.uint16]:
    """The type of label maps of so many classes: uint8 holds 254 beside 0 and 255."""
    return np.uint8 if classes <= 254 else np.uint16
