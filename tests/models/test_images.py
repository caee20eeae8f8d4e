"""Pictures of every kind become uint8 RGB; everything else is refused in one clear line."""

import io
import os
import struct
import sys
import zlib

import numpy as np
import pytest
import tifffile
from PIL import EpsImagePlugin, Image

from models.images import load_image
from tests.models.checkpoints import one_line

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def save(tmp_path, image: Image.Image, name: str = "a.png", **options) -> str:
    path = tmp_path / name
    image.save(path, **options)
    return str(path)


def gradient(height: int = 3, width: int = 5) -> np.ndarray:
    return np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)


def test_path_string_pil_and_array_agree_and_share_no_memory(tmp_path):
    array = gradient()
    path = save(tmp_path, Image.fromarray(array))
    for source in (path, tmp_path / "a.png", Image.fromarray(array), array):
        image = load_image(source)
        np.testing.assert_array_equal(image, array)
        assert image.dtype == np.uint8 and image.shape == (3, 5, 3)
        assert image.flags.c_contiguous and image.flags.writeable
        assert not np.shares_memory(image, array)


def test_grey(tmp_path):
    grey = np.array([[0, 100, 255]], np.uint8)
    expected = np.repeat(grey[..., None], 3, axis=2)
    path = save(tmp_path, Image.fromarray(grey))
    for source in (path, grey, grey[..., None]):
        np.testing.assert_array_equal(load_image(source), expected)
    np.testing.assert_array_equal(
        load_image(Image.fromarray(grey > 128)), [[(0, 0, 0), (0, 0, 0), WHITE]]
    )


def test_palette_with_and_without_transparency(tmp_path):
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *GREEN, *BLUE])
    image.putdata([0, 1, 2])
    np.testing.assert_array_equal(load_image(save(tmp_path, image)), [[RED, GREEN, BLUE]])
    path = save(tmp_path, image, transparency=1)
    np.testing.assert_array_equal(load_image(path), [[RED, WHITE, BLUE]])


def test_alpha_is_composited_on_white(tmp_path):
    rgba = np.array([[(*RED, 255), (*RED, 0), (0, 0, 0, 128)]], np.uint8)
    path = save(tmp_path, Image.fromarray(rgba))
    for source in (path, rgba, Image.fromarray(rgba)):
        np.testing.assert_array_equal(load_image(source), [[RED, WHITE, (127, 127, 127)]])
    grey_alpha = Image.new("LA", (2, 1))
    grey_alpha.putdata([(10, 255), (10, 0)])
    np.testing.assert_array_equal(load_image(save(tmp_path, grey_alpha)), [[(10, 10, 10), WHITE]])


def test_one_colour_declared_transparent(tmp_path):
    image = Image.new("RGB", (2, 1), RED)
    image.putpixel((1, 0), BLUE)
    path = save(tmp_path, image, transparency=BLUE)
    np.testing.assert_array_equal(load_image(path), [[RED, WHITE]])


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path, name):
    values = np.array([[0, 257, 257 * 100 + 128, 257 * 100 + 129, 65535]], np.uint16)
    path = save(tmp_path, Image.fromarray(values), name)
    np.testing.assert_array_equal(load_image(path)[..., 0], [[0, 1, 100, 101, 255]])
    np.testing.assert_array_equal(load_image(path)[..., 0], load_image(path)[..., 2])


def test_cmyk_jpeg(tmp_path):
    image = Image.new("CMYK", (16, 8), (0, 255, 255, 0))  # no cyan: red
    loaded = load_image(save(tmp_path, image, "a.jpg", quality=95))
    assert loaded.shape == (8, 16, 3)
    assert np.abs(loaded.astype(int) - RED).max() < 10


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [(1, [[RED, GREEN]]), (3, [[GREEN, RED]]), (6, [[RED], [GREEN]]), (8, [[GREEN], [RED]])],
)
def test_exif_orientation_is_applied_once(tmp_path, orientation, expected):
    image = Image.new("RGB", (2, 1), RED)
    image.putpixel((1, 0), GREEN)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path, image, exif=exif)
    np.testing.assert_array_equal(load_image(path), expected)
    with Image.open(path) as opened:
        np.testing.assert_array_equal(load_image(opened), expected)


def test_broken_exif_does_not_matter(tmp_path):
    path = save(tmp_path, Image.new("RGB", (8, 4), RED), "a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\xff!!")
    assert load_image(path).shape == (4, 8, 3)


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (700, 1), (20, 20), (4000, 6000)])
def test_any_size(tmp_path, size):
    path = save(tmp_path, Image.new("L", size[::-1], 7), compress_level=1)
    image = load_image(path)
    assert image.shape == (*size, 3) and image[-1, -1].tolist() == [7, 7, 7]


def test_unicode_path(tmp_path):
    folder = tmp_path / "Bäume 树 🌳"
    folder.mkdir()
    np.testing.assert_array_equal(
        load_image(save(folder, Image.new("RGB", (1, 1), BLUE), "straße é.png")), [[BLUE]]
    )


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 5, 3)), "must be uint8.*got float64"),
        (np.zeros((4, 5, 3), np.uint16), "must be uint8.*got uint16"),
        (np.zeros((4, 5), bool), "must be uint8.*got bool"),
        (np.zeros((3, 4, 5), np.uint8), r"must have shape.*got \(3, 4, 5\)"),
        (np.zeros((1, 3, 4, 5), np.uint8), r"got \(1, 3, 4, 5\)"),
        (np.zeros(4, np.uint8), r"got \(4,\)"),
        (np.zeros((0, 5, 3), np.uint8), r"got \(0, 5, 3\)"),
    ],
)
def test_wrong_arrays(array, message):
    with pytest.raises(ValueError, match=message):
        load_image(array)


def test_wrong_type():
    with pytest.raises(ValueError, match="got list"):
        load_image([[1, 2], [3, 4]])


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        load_image(tmp_path / "no.jpg")
    assert one_line(error).startswith(f"image not found: '{tmp_path / 'no.jpg'}'; ")
    with pytest.raises(ValueError, match="empty; give an image file"):
        load_image("")


def test_files_that_are_no_images(tmp_path):
    text, nothing = tmp_path / "text.png", tmp_path / "nothing.png"
    text.write_text("hello")
    nothing.write_bytes(b"")
    for path, message in (
        (tmp_path, "is a folder"),
        (text, "not an image that Pillow can read; convert it"),
        (nothing, "0 bytes"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            load_image(path)
        assert f"'{path}'" in one_line(error)


def test_what_a_name_says_does_not_matter(tmp_path):
    path = save(tmp_path, Image.new("RGB", (2, 1), BLUE), "a.jpg", format="PNG")
    np.testing.assert_array_equal(load_image(path), [[BLUE, BLUE]])
    frames = [Image.new("P", (2, 1), value) for value in (1, 2)]
    for frame in frames:
        frame.putpalette([*RED, *GREEN, *BLUE])
    path = save(tmp_path, frames[0], "b.png", format="GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(load_image(path), [[GREEN, GREEN]])  # the first frame


def test_pipes_and_devices_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    for path in (tmp_path / "a.png", "/dev/zero"):
        with pytest.raises(ValueError, match="is a pipe or a device, not a file") as error:
            load_image(path)
        one_line(error)


def test_postscript_is_not_run(tmp_path, monkeypatch):
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", None)  # calling it would fail otherwise
    path = save(tmp_path, Image.new("RGB", (2, 1)), "a.png", format="EPS")
    for source in (path, Image.open(path)):
        with pytest.raises(ValueError, match="PostScript is a program, not a picture"):
            load_image(source)


def test_links_in_a_circle(tmp_path):
    (tmp_path / "a.png").symlink_to("b.png")
    (tmp_path / "b.png").symlink_to("a.png")
    with pytest.raises(FileNotFoundError, match="image not found"):
        load_image(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.gif", "a.webp", "a.bmp"])
def test_truncated_files(tmp_path, name):
    rng = np.random.default_rng(0)
    whole = io.BytesIO()
    noise = Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8))
    noise.save(whole, format=Image.registered_extensions()[name[1:]])
    path = tmp_path / name
    path.write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    with pytest.raises(ValueError, match=r"download it again|convert it to PNG") as error:
        load_image(path)
    assert f"'{path}'" in one_line(error)


def test_damaged_png_header(tmp_path):
    path = save(tmp_path, Image.new("RGB", (4, 4)))
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[45] ^= 0xFF
    (tmp_path / "a.png").write_bytes(bytes(data))
    with pytest.raises(ValueError, match="damaged"):
        load_image(path)


def test_float_and_wide_integer_files_are_refused(tmp_path):
    path = save(tmp_path, Image.fromarray(np.ones((2, 3), np.float32)), "f.tif")
    with pytest.raises(ValueError, match=r"f\.tif.*floating-point"):
        load_image(path)
    with pytest.raises(ValueError, match=r"0…70000 do not fit in 16 bits"):
        load_image(Image.fromarray(np.array([[0, 70000]], np.int32)))


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header promises width × height grey pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_000, 60_000])  # Pillow warns at the first, raises at the other
def test_decompression_bombs(tmp_path, side):
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb(side, side))
    with pytest.raises(ValueError, match=f"more than {Image.MAX_IMAGE_PIXELS} pixels") as error:
        load_image(path)
    assert f"'{path}'" in one_line(error)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(values: np.ndarray, *chunks: bytes) -> bytes:
    """A PNG of 16-bit grey (H, W) or RGB (H, W, 3), with more chunks."""
    size = (*values.shape[1::-1], 16, 2 * (values.ndim == 3), 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    parts = chunk(b"IHDR", struct.pack(">IIBBBBB", *size)), *chunks
    data = chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts + data)


TURNED = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # by 90°
LARGE = zlib.compress(bytes(3_000_000))


@pytest.mark.parametrize(
    "bad",
    [
        chunk(b"eXIf", b"no EXIF"),
        chunk(b"iCCP", b"x\0\0" + LARGE),
        chunk(b"iCCP", b"x\0\x07none"),
        chunk(b"zTXt", b"x\0\0" + LARGE),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\x01\0\0\0" + LARGE),
        chunk(b"zTXt", b"x\0\x05" + LARGE),
        chunk(b"tEXt", b"Raw profile type exif\0\nexif\n 4\nzzzz\n"),
        chunk(b"tEXt", b"x\0y")[:-1] + b"?",
    ],
)
def test_bad_metadata_of_a_sound_png(tmp_path, bad):
    values = np.array([[0, 257, 65535]], np.uint16)
    path = tmp_path / "a.png"
    path.write_bytes(png(values, bad))
    assert load_image(path)[..., 0].tolist() == [[0, 1, 255]]
    if b"eXIf" not in bad and b"exif" not in bad:  # what can be read counts
        path.write_bytes(png(values, bad, chunk(b"eXIf", TURNED)))
        assert load_image(path)[..., 0].tolist() == [[0], [1], [255]]
    noise = np.random.default_rng(0).integers(0, 65536, (20, 30), np.uint16)
    path.write_bytes(png(noise, bad)[:-600])
    with pytest.raises(ValueError, match="truncated, damaged"):
        load_image(path)


@pytest.mark.parametrize("name", ["a.webp", "a.jpg", "a.png", "a.tif"])
@pytest.mark.parametrize("exif", [b"Exif\0\0nothing", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"])
def test_bad_exif(tmp_path, name, exif):
    options = {"exif": exif, "icc_profile": b"no profile"} if name != "a.tif" else {}
    path = save(tmp_path, Image.new("RGB", (8, 4), RED), name, **options)
    if name == "a.tif":
        tags = [(700, 2, 4, "XMP", True)]  # text, where there should be bytes
        tifffile.imwrite(path, np.zeros((4, 8, 3), np.uint8), photometric="rgb", extratags=tags)
    assert load_image(path).shape == (4, 8, 3)


def test_transparent_colour_of_other_depths(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(np.array([[0, 300, 301]], np.uint16), chunk(b"tRNS", b"\x01\x2c")))
    assert load_image(path)[..., 0].tolist() == [[0, 255, 1]]
    rgb = np.array([[(257, 514, 0), (257, 515, 0)]], np.uint16)
    path.write_bytes(png(rgb, chunk(b"tRNS", rgb[0, 0].astype(">u2").tobytes())))
    assert load_image(path).tolist() == [[[255] * 3, [1, 2, 0]]]


@pytest.mark.parametrize("options", [{}, {"byteorder": ">"}, {"tile": (16, 16)}])
@pytest.mark.parametrize("kind", ["rgb", "separated", "miniswhite", "minisblack"])
def test_deep_tiffs(tmp_path, kind, options):
    bands = {"rgb": 3, "separated": 4}.get(kind, 1)
    values = np.random.default_rng(0).integers(0, 65536, (bands, 20, 30), np.uint16)
    if kind == "separated":
        options = {**options, "extrasamples": []}
    planes = {"planarconfig": "separate"} if bands > 1 else {}
    tifffile.imwrite(tmp_path / "a.tif", np.squeeze(values), photometric=kind, **planes, **options)
    eight = (values / 257).round().astype(np.uint8)
    expected = np.broadcast_to(eight.transpose(1, 2, 0), (20, 30, max(3, bands)))
    if kind == "separated":
        expected = np.asarray(Image.fromarray(expected, "CMYK").convert("RGB"))
    if kind == "miniswhite":
        expected = 255 - expected
    if kind == "miniswhite" and "byteorder" in options:  # Pillow does not know it
        with pytest.raises(ValueError, match="convert it to PNG"):
            load_image(tmp_path / "a.tif")
        return
    assert np.abs(load_image(tmp_path / "a.tif").astype(int) - expected).max() <= 1
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="truncated, damaged"):
        load_image(tmp_path / "a.tif")


@pytest.mark.parametrize("place", [0, 12, 10**6])
def test_a_tiff_with_an_interoperability_tag(tmp_path, place):
    """It belongs into the EXIF directory; cameras' software leaves it in the main one."""
    values = np.random.default_rng(0).integers(0, 256, (2, 5, 3), np.uint8)
    tag = (0xA005, 4, 1, place, True)  # an offset
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", extratags=[tag])
    np.testing.assert_array_equal(load_image(tmp_path / "a.tif"), values)
    np.testing.assert_array_equal(load_image(Image.open(tmp_path / "a.tif")), values)


def test_heic_without_pillow_heif(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "a.jpg").write_bytes(b"\0\0\0\x18ftypheic" + bytes(30))
    with pytest.raises(ValueError, match=r"a\.jpg'.*pip install pillow-heif"):
        load_image(tmp_path / "a.jpg")
