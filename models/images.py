"""Read any picture as uint8 RGB.

Shapes: H×W image pixels. The result is always upright (EXIF orientation applied), opaque
(transparent parts lie on white) and 8 bits deep.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

ImageSource = str | Path | Image.Image | np.ndarray

# What Pillow's decoders raise on damaged files.
_DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, AttributeError,
    ArithmeticError, AssertionError, RuntimeError, struct.error, zlib.error,
)  # fmt: skip


class _UnsupportedError(ValueError):
    """The file is sound, but its pixel values have no agreed meaning as 8-bit colours."""


def load_image(source: ImageSource) -> np.ndarray:
    """Read a picture from a file, a PIL image or an array.

    Grey, palette, 16-bit grey (0…65535 becomes 0…255), CMYK and transparent pictures are
    converted; transparency is composited on white. Of an animation, the first frame is taken.

    Args:
        source: path, PIL image, or uint8 array (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA.

    Returns:
        (H, W, 3) uint8 RGB, contiguous, never sharing memory with `source`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a picture, damaged, too large, or an array of another type or shape.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        try:
            return _to_rgb(source)
        except _UnsupportedError:
            raise
        except _DECODER_ERRORS as error:  # PIL images decode late
            raise ValueError(f"cannot decode the PIL image: {_reason(error)}") from error
    if isinstance(source, str | Path):
        return _from_file(source)
    raise ValueError(
        f"image must be a path, a PIL image or a uint8 array, got {type(source).__name__}"
    )


def _from_file(source: str | Path) -> np.ndarray:
    name = f"'{source}'"
    path = Path(source)
    if not str(source).strip():
        raise ValueError("the image path is empty; give an image file")
    if path.is_dir():
        raise ValueError(f"{name} is a folder; give an image file")
    if not path.exists():
        raise FileNotFoundError(f"image not found: {name}; check the path")
    if not path.is_file():  # a pipe would be waited for, a device read without end
        raise ValueError(f"{name} is a pipe or a device, not a file; save the image as a file")
    if path.stat().st_size == 0:
        raise ValueError(f"image file {name} is empty (0 bytes); copy or download it again")
    # Opened here, so that a missing permission is not mistaken for a damaged file.
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow's, about metadata: several lines each
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(file) as image:
                return _to_rgb(image)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise ValueError(
                f"image {name} has more than {Image.MAX_IMAGE_PIXELS} pixels, the limit; shrink "
                "it, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust the file"
            ) from error
        except _UnsupportedError as error:
            raise ValueError(f"image {name}: {error}") from error
        except UnidentifiedImageError as error:
            raise ValueError(
                f"{name} is not an image that Pillow can read; convert it to PNG or JPEG"
            ) from error
        except _DECODER_ERRORS as error:
            raise ValueError(
                f"image file {name} is truncated, damaged or of an unsupported kind "
                f"({_reason(error)}); copy or download it again, or convert it to PNG"
            ) from error


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.format == "EPS":  # Pillow would run Ghostscript on it, whatever the file is called
        raise _UnsupportedError("PostScript is a program, not a picture; convert it to PNG")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # I;16, I;16B, I;16L and I: integers of 16 or 32 bits
        values = np.asarray(image)
        if values.size and not 0 <= values.min() <= values.max() <= 65535:
            raise _UnsupportedError(
                f"grey values {values.min()}…{values.max()} do not fit in 16 bits; "
                "scale them to 8 bits"
            )
        grey = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 = 255 · 257
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode == "F":
        raise _UnsupportedError("floating-point images have no fixed range; scale it to 8 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


def _from_array(array: np.ndarray) -> np.ndarray:
    if array.dtype != np.uint8:
        raise ValueError(
            f"image array must be uint8 with values 0…255, got {array.dtype}; "
            "convert it, e.g. (array * 255).astype('uint8') for floats in 0…1"
        )
    shape = array.shape
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3, 4)) or 0 in shape:
        raise ValueError(
            "image array must have shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) with "
            f"H, W > 0, got {shape}"
        )
    if len(shape) == 3 and shape[2] == 4:
        return _to_rgb(Image.fromarray(np.ascontiguousarray(array)))
    return np.array(np.broadcast_to(np.atleast_3d(array), (*shape[:2], 3)), order="C")


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
