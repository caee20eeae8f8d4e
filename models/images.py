"""Read any picture as uint8 RGB.

Shapes: H×W image pixels. The result is always upright (EXIF orientation applied), opaque
(transparent parts lie on white) and 8 bits deep.
"""

from __future__ import annotations

import importlib
import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile, PngStream
from PIL.TiffImagePlugin import TiffImageFile

ImageSource = str | Path | Image.Image | np.ndarray

# What Pillow's decoders raise on damaged files.
_DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, AttributeError,
    ArithmeticError, AssertionError, RuntimeError, struct.error, zlib.error,
)  # fmt: skip

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # EXIF orientation → what makes it upright
_TAGS = ExifTags.Base  # those of TIFF files are the same


class _UnsupportedError(ValueError):
    """The file is sound, but its pixel values have no agreed meaning as 8-bit colours."""


def load_image(source: ImageSource) -> np.ndarray:
    """Read a picture from a file, a PIL image or an array.

    Grey, palette, 16-bit grey (0…65535 becomes 0…255), CMYK and transparent pictures are
    converted; transparency is composited on white. Of an animation, the first frame is taken.
    Metadata that cannot be read are ignored. HEIC is read where pillow-heif is installed.

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
            return _decode(file)
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


def reads_heif() -> bool:
    """Whether HEIC files can be read: Pillow learns it here from pillow-heif, where installed."""
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except ImportError:
        return False
    return True


def _decode(file: BinaryIO) -> np.ndarray:
    head = file.read(12)
    if head[4:10] in (b"ftyphe", b"ftypmi", b"ftypms") and not reads_heif():
        try:  # an AVIF may begin so, too
            Image.open(file).close()
        except UnidentifiedImageError:
            raise _UnsupportedError(
                "HEIC needs pillow-heif: pip install pillow-heif, or convert it to JPEG"
            ) from None
    try:
        with Image.open(file) as image:
            return _to_rgb(image)
    except _UnsupportedError:
        raise
    except _DECODER_ERRORS:
        file.seek(0)
        if (bare := _without_bad_metadata(file.read())) is None:
            raise
        with Image.open(io.BytesIO(bare)) as image:
            return _to_rgb(image)


def _without_bad_metadata(data: bytes) -> bytes | None:
    """A PNG with its pixels and the metadata that may turn it and can be read; None if it is none.

    Pillow refuses the whole file for a profile or text that is damaged, or above 1 MB unpacked.
    """
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        return None
    kept, at, reader = [data[:8]], 8, PngStream(io.BytesIO())
    while at < len(data):
        chunk = data[at : at + 12 + int.from_bytes(data[at : at + 4], "big")]
        at += len(chunk)
        kind, content = chunk[4:8], chunk[8:-4]
        if kind in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"):
            reader.fp = io.BytesIO(content)
            try:
                reader.call(kind, 0, len(content))
            except _DECODER_ERRORS:
                continue
            if zlib.crc32(chunk[4:-4]).to_bytes(4, "big") == chunk[-4:]:
                kept.append(chunk)
        elif kind[:1].isupper() or kind == b"tRNS":  # upper case: without it there is no picture
            kept.append(chunk)
    return b"".join(kept)


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.format == "EPS":  # Pillow would run Ghostscript on it, whatever the file is called
        raise _UnsupportedError("PostScript is a program, not a picture; convert it to PNG")
    if isinstance(image, TiffImageFile):
        image = _right_tiff(image)
    elif isinstance(image, PngImageFile) and image.tile and "transparency" in image.info:
        image = _right_transparency(image)
    image = _upright(image)
    if image.mode.startswith("I"):  # I;16, I;16B, I;16L and I: integers of 16 or 32 bits
        values = np.asarray(image)
        if values.size and not 0 <= values.min() <= values.max() <= 65535:
            raise _UnsupportedError(
                f"grey values {values.min()}…{values.max()} do not fit in 16 bits; "
                "scale them to 8 bits"
            )
        grey = _eight_bits(values)
        if isinstance(clear := image.info.get("transparency"), int):
            grey[values == clear] = 255
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode == "F":
        raise _UnsupportedError("floating-point images have no fixed range; scale it to 8 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


def _upright(image: Image.Image) -> Image.Image:
    image.load()  # apart, so that bad pixels are not taken for bad metadata
    try:
        turn = _TURNS.get(image.getexif().get(_TAGS.Orientation, 1))
    except _DECODER_ERRORS:
        turn = None
    return image if turn is None else image.transpose(turn)


def _right_tiff(image: TiffImageFile) -> Image.Image:
    """What Pillow gets wrong: uncompressed planes unless of 8 bits, and the scale of deep grey."""
    if not isinstance(image.info.get("xmp"), bytes):
        image.info.pop("xmp", None)  # Pillow would search it for text as it decodes
    exif = image.getexif()
    if _TAGS.ExifInteroperabilityOffset in exif:  # Pillow would look for it where it belongs
        del exif[_TAGS.ExifInteroperabilityOffset]
    tags = image.tag_v2
    bits, photometric = (
        tags.get(_TAGS.BitsPerSample, (1,)),
        tags.get(_TAGS.PhotometricInterpretation),
    )
    if tags.get(_TAGS.PlanarConfiguration) == 2 and image.info.get("compression") == "raw":
        if set(bits) != {8} or photometric == 0 or tags.get(_TAGS.FillOrder) == 2:
            return _planes(image)
    if image.mode.startswith("I;16") and (photometric == 0 or bits == (12,)):
        values = np.asarray(image).astype(np.uint32)
        if bits == (12,):
            values = values * 65535 // 4095
        return Image.fromarray((65535 - values if photometric == 0 else values).astype(np.uint16))
    return image


def _planes(image: TiffImageFile) -> Image.Image:
    """The picture of a TIFF whose samples lie in planes of their own, uncompressed."""
    if not image.tile or image.fp is None:
        raise _UnsupportedError("PIL decodes such a TIFF to wrong pixels; give its path instead")
    import tifffile

    tags = image.tag_v2
    image.fp.seek(0)
    with tifffile.TiffFile(image.fp) as file:
        page = file.pages[image.tell()]
        last = max(a + n for a, n in zip(page.dataoffsets, page.databytecounts, strict=True))
        if last > file.filehandle.size:
            raise EOFError("the file ends before its pixels")
        values = page.asarray()
    photometric = tags.get(_TAGS.PhotometricInterpretation)
    if values.dtype not in (np.uint8, np.uint16) or photometric not in (0, 1, 2, 5):
        raise _UnsupportedError(f"such planes of {values.dtype} are not read; convert it to PNG")
    if values.dtype == np.uint16:
        values = _eight_bits(values)
    if photometric == 0:
        values = 255 - values
    mode = "L" if values.ndim == 2 else image.mode
    if mode == "RGBA" and tags.get(_TAGS.ExtraSamples) == (1,):
        mode = "RGBa"  # colours are multiplied by alpha
    planes = values[None] if values.ndim == 2 else values[: len(mode)]
    right = Image.merge(mode, [Image.fromarray(plane) for plane in planes])
    if mode == "RGBa":
        right = right.convert("RGBA")
    right.getexif()[_TAGS.Orientation] = tags.get(_TAGS.Orientation, 1)
    return right


def _right_transparency(image: PngImageFile) -> Image.Image:
    """A PNG not yet decoded, with the transparent colour that Pillow compares at other depths."""
    coded = image.tile[0][3]
    if coded in ("L;2", "L;4"):
        image.info["transparency"] *= {"L;2": 85, "L;4": 17}[coded]
    elif coded == "RGB;16B" and image.fp is not None:
        import cv2

        position = image.fp.tell()
        image.fp.seek(0)
        data = np.frombuffer(image.fp.read(), np.uint8)
        image.fp.seek(position)
        image.load()  # what is wrong with the file is said by Pillow
        pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        if pixels is None or pixels.shape != (*image.size[::-1], 4):
            raise _UnsupportedError("its transparent colour cannot be told; convert it to 8 bits")
        right = image.copy()
        right.putalpha(Image.fromarray((pixels[..., 3] > 0).astype(np.uint8) * 255))
        return right
    return image


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """0…65535 to 0…255: 65535 = 255 · 257."""
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


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
