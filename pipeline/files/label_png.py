"""Label maps: what they are kept in, and PNG files whose values, not colours, are the labels.

Up to 254 classes have 8 bits and VOC's palette, more have 16 bits and are grey.

Shapes: H×W image pixels.
"""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from .atomic import write_atomically

_EXPECTED = "a palette or grey PNG of 8 bits whose values are the labels, as VOC's own"
_VOC_LABELS = (*range(1, 21), 255)  # VOC's classes and void; 0, black, says nothing
_KINDS = {0: "grey", 2: "colour", 3: "palette", 4: "grey with alpha", 6: "colour with alpha"}
# What Pillow raises on damaged files.
_DAMAGED = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error,
    Image.DecompressionBombError,
)  # fmt: skip


def label_dtype(classes: int) -> type[np.uint8] | type[np.uint16]:
    """The type of label maps of so many classes: 0 is none of them, i + 1 is class i.

    The type's highest value stays free: in VOC's maps it means "not scored".

    Raises:
        ValueError: more classes than 16 bits can tell apart.
    """
    for dtype in (np.uint8, np.uint16):
        if classes < np.iinfo(dtype).max:
            return dtype
    raise ValueError(f"label maps tell 65534 classes apart, got {classes}")


def voc_palette() -> np.ndarray:
    """PASCAL VOC's palette, (256, 3) uint8 RGB: the bits of the index dealt out to R, G, B."""
    index = np.arange(256)[:, None]
    bits = [(index >> 3 * bit + np.arange(3) & 1) << 7 - bit for bit in range(8)]
    return np.bitwise_or.reduce(bits).astype(np.uint8)


def read_index_png(path: str | Path, *, wide: bool = False) -> np.ndarray:
    """The values of a palette or 8-bit grey PNG, (H, W) uint8; a palette of its own may be any.

    Args:
        path: the file.
        wide: a grey PNG of 16 bits is read as well, as uint16.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a PNG, damaged, of a kind that has no such values, or with VOC's colours at
            other values than VOC's.
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
            values, palette = np.array(image), image.getpalette() or []
    except _DAMAGED as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"label map '{path}' is truncated or damaged ({reason}); copy or download it again"
        ) from error
    # Pillow does not tell, and stretches grey values of fewer bits to 0…255 (not palette indices).
    bits, kind = data[24], data[25]  # of the file's header
    if kind == 3:
        _check_colours(path, values, palette)
    if kind == 3 or (bits, kind) == (8, 0):
        return values
    if wide and (bits, kind) == (16, 0):
        return values.astype(np.uint16)  # older versions of Pillow give int32
    what = f"a {_KINDS[kind]} PNG of {bits} bits"
    also = ", or a grey one of 16 bits" if wide else ""
    raise ValueError(f"label map '{path}' is {what}; expected {_EXPECTED}{also}")


def _check_colours(path: Path, values: np.ndarray, palette: list[int]) -> None:
    """Refuse VOC's colours at other values: a label map that was made a colour image and back.

    Colours of VOC's classes and void count; black and white, which every palette may have, do not.
    No more of them than of other colours may be chance, in a palette of its own.
    """
    own = np.array(palette, np.uint8).reshape(-1, 3)
    label_of = {tuple(c): i for i, c in enumerate(voc_palette().tolist()) if i in _VOC_LABELS}
    plain = (own == 0).all(1) | (own == 255).all(1)
    used = [i for i in np.unique(values).tolist() if i < len(own) and not plain[i]]
    meant = {i: label_of.get(tuple(own[i].tolist())) for i in used}
    moved = [(i, label) for i, label in meant.items() if label not in (i, None)]
    if len(moved) > sum(label is None for label in meant.values()):
        value, label = moved[0]
        raise ValueError(
            f"label map '{path}' has VOC's colours at other values: {value} has the colour of "
            f"label {label}, {tuple(own[value].tolist())}; an image program has renumbered it, so "
            "take the original file, or write values as in VOC's palette"
        )


def write_index_png(path: str | Path, values: np.ndarray) -> None:
    """Write a label map (H, W) as a PNG, whole or not at all.

    Args:
        path: its name.
        values: uint8, which gets VOC's palette, or uint16, which becomes a grey PNG of 16 bits.

    Raises:
        OSError: the file cannot be written.
    """
    image = Image.fromarray(values)
    if values.dtype == np.uint8:
        image.putpalette(voc_palette().tobytes())  # mode L becomes P, values stay
    data = io.BytesIO()
    image.save(data, format="PNG")
    write_atomically(path, data.getvalue())
