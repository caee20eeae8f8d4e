"""Label maps as PNG files."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.files.label_png import label_dtype, read_index_png, voc_palette, write_index_png

LABEL = np.array([[0, 0, 15, 15, 255], [0, 20, 20, 15, 255], [0, 0, 20, 255, 255]], np.uint8)


def refusal(kind: type[Exception], path: Path) -> str:
    """The one line of a refusal."""
    with pytest.raises(kind) as caught:
        read_index_png(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_grey_and_small_palette_pngs_are_read(tmp_path):
    grey, palette = tmp_path / "grey.png", tmp_path / "palette.png"
    Image.fromarray(LABEL).save(grey)
    assert np.array_equal(read_index_png(grey), LABEL)
    image = Image.frombytes("P", (5, 3), (LABEL % 4).tobytes())
    image.putpalette(voc_palette()[:4].tobytes())
    image.save(palette, bits=2)
    assert palette.read_bytes()[24] == 2  # bits per value, as the header says
    assert np.array_equal(read_index_png(palette), LABEL % 4)


@pytest.mark.parametrize(
    ("mode", "words"),
    [("RGB", "colour PNG of 8 bits"), ("RGBA", "colour with alpha"), ("LA", "grey with alpha"),
     ("I;16", "grey PNG of 16 bits"), ("1", "grey PNG of 1 bits")],
)  # fmt: skip
def test_other_kinds_of_png_are_refused(tmp_path, mode, words):
    path = tmp_path / "label.png"
    Image.new(mode, (5, 3)).save(path)
    message = refusal(ValueError, path)
    assert str(path) in message and words in message and "palette or grey PNG of 8 bits" in message


def test_damaged_label_maps_are_refused(tmp_path):
    path = tmp_path / "label.png"
    rng = np.random.default_rng(0)
    write_index_png(path, rng.integers(0, 21, (60, 80), np.uint8))
    data = path.read_bytes()
    for length in (10, 20, 30, len(data) // 2, len(data) - 30):
        path.write_bytes(data[:length])
        assert "damaged" in refusal(ValueError, path)
    for position in range(-70, -20):  # some of these decode to other labels without an error
        flipped = bytearray(data)
        flipped[position] ^= 8
        path.write_bytes(flipped)
        assert "damaged" in refusal(ValueError, path)
    path.write_bytes(b"")
    assert "0 bytes" in refusal(ValueError, path)
    jpeg = io.BytesIO()
    Image.new("L", (5, 3)).save(jpeg, format="JPEG")
    path.write_bytes(jpeg.getvalue())
    assert "not a PNG" in refusal(ValueError, path)
    path.unlink()
    assert str(path) in refusal(FileNotFoundError, path)


def test_wide_label_maps_only_where_asked_for(tmp_path):
    path = tmp_path / "label.png"
    values = LABEL.astype(np.uint16) * 257
    write_index_png(path, values)
    found = read_index_png(path, wide=True)
    assert found.dtype == np.uint16 and np.array_equal(found, values)
    assert "grey PNG of 16 bits" in refusal(ValueError, path)
    write_index_png(path, LABEL)
    assert read_index_png(path, wide=True).dtype == np.uint8
    Image.new("RGB", (5, 3)).save(path)
    with pytest.raises(ValueError, match=r"colour PNG of 8 bits; .* or a grey one of 16 bits$"):
        read_index_png(path, wide=True)


def test_the_type_of_label_maps():
    kinds = {0: 8, 1: 8, 254: 8, 255: 16, 1203: 16, 65534: 16}
    assert {n: np.iinfo(label_dtype(n)).bits for n in kinds} == kinds
    with pytest.raises(ValueError, match="65534 classes apart, got 65535"):
        label_dtype(65535)


def test_written_label_maps_have_vocs_colours(tmp_path):
    path = tmp_path / "folder" / "label.png"
    write_index_png(path, LABEL)
    assert np.array_equal(read_index_png(path), LABEL)
    with Image.open(path) as image:
        assert image.mode == "P"
        assert np.asarray(image.convert("RGB"))[0, 2].tolist() == [192, 128, 128]  # person


def write_palette(path: Path, values: np.ndarray, palette: list[tuple[int, int, int]]) -> None:
    image = Image.frombytes("P", values.shape[::-1], values.astype(np.uint8).tobytes())
    image.putpalette([channel for colour in palette for channel in colour])
    image.save(path)


def test_vocs_colours_at_other_values_are_refused(tmp_path):
    path = tmp_path / "label.png"
    write_index_png(path, LABEL)
    Image.open(path).convert("RGB").quantize(256).save(path)  # as image programs renumber
    assert "has VOC's colours at other values" in refusal(ValueError, path)
    person = tuple(voc_palette()[15].tolist())
    write_palette(path, LABEL == 15, [(0, 0, 0), person])
    message = refusal(ValueError, path)
    assert "1 has the colour of label 15, (192, 128, 128)" in message and str(path) in message
    values = np.select([LABEL == 15, LABEL == 255], [1, 2])
    write_palette(path, values, [(0, 0, 0), person, (255, 255, 255)])  # void is white
    assert "colour of label 15" in refusal(ValueError, path)


@pytest.mark.parametrize(
    "palette",
    [
        [(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)],
        [(255, 255, 255), (0, 0, 0), (0, 0, 0), (10, 20, 30)],
        [(0, 0, 0), (255, 0, 0), (128, 0, 0), (255, 165, 0)],  # one of VOC's, by chance
    ],
)
def test_palettes_of_their_own_are_read(tmp_path, palette):
    path = tmp_path / "label.png"
    write_palette(path, LABEL % 4, palette)
    assert np.array_equal(read_index_png(path), LABEL % 4)
