"""COCO's run lengths: as pycocotools has them, and refused where they are none."""

import json

import numpy as np
import pytest
from pycocotools import mask as coco

from pipeline.files.rle import decode_rle, encode_rle


def test_by_hand():
    mask = np.array([[0, 1, 1], [0, 0, 1]], bool)  # down the columns: 00 10 11
    # Runs 2, 1, 1, 2; from the fourth on, COCO writes the difference to the one two before: 2 - 1.
    rle = {"size": [2, 3], "counts": "2111"}
    assert encode_rle(mask) == rle
    for counts in ("2111", b"2111", [2, 1, 1, 2], (2, 1, 1, 2), [0, 0, 2, 1, 1, 1, 0, 1]):
        assert np.array_equal(decode_rle(rle | {"counts": counts}, (2, 3)), mask)


@pytest.mark.parametrize(
    ("size", "density"),
    [((1, 1), 0), ((1, 1), 1), ((1, 9), 0.5), ((7, 1), 0.5), ((13, 5), 0), ((13, 5), 1),
     ((7, 5), 0.1), ((300, 400), 0.002), ((1500, 2250), 0.0001)],
)  # fmt: skip
def test_round_trip_and_pycocotools(size, density):
    mask = np.random.default_rng(0).random(size) < density
    for _ in range(2):
        rle = json.loads(json.dumps(encode_rle(mask)))
        assert rle["size"] == list(size)
        for found in (decode_rle(rle), decode_rle(rle, size), coco.decode(rle)):
            assert np.array_equal(found, mask)
        mask.flat[0] = True  # a first run of no pixel
        mask[:, size[1] // 2 :] ^= True  # long runs as well


BAD = {
    "no run lengths with size and counts": ["x", None, 3, [], {"size": [2, 3]}, {"counts": "06"}],
    "have size": [
        {"size": size, "counts": "06"}
        for size in ([3, 2], [2], [2, 3, 1], "23", None, 6, [2.0, 3], [True, 6], [-2, -3], [0, 3],
                     ["2", "3"], [10**30, 3], [1 << 20, 1 << 20])
    ],
    "do not add up to 2×3 pixels": [
        {"size": [2, 3], "counts": counts}
        for counts in ("0", "1", "07", "12", "O2O6", [], [6, 1], [5], [-1, 7], [10**30, 6],
                       [1 << 63, 1 << 63, 6], "@@", "oooooo0oooooo0")
    ],
    "neither text nor whole": [
        {"size": [2, 3], "counts": counts}
        for counts in (None, 6, 6.0, [1.5, 4.5], [None], [True, 5], ["6"], {"0": 6}, [[6]])
    ],
    "not COCO's run lengths": [
        {"size": [2, 3], "counts": counts}
        for counts in ("", b"", "06o", "06p", "~~~\x7f", "0 6", "0\n6", b"\xff", "/6")
    ],
    "not ASCII": [{"size": [2, 3], "counts": counts} for counts in ("é", "\udc80", "٣")],
    "too large": [{"size": [2, 3], "counts": "o" * 30 + "0"}],
}  # fmt: skip


@pytest.mark.parametrize("message", BAD)
def test_refused(message):
    for rle in BAD[message]:
        with pytest.raises(ValueError, match=message) as caught:
            decode_rle(rle, (2, 3))
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 150


def test_whatever_the_bytes_a_mask_or_one_clear_line():
    rng = np.random.default_rng(0)
    masks = 0
    for number in range(3000):
        sound = encode_rle(rng.random((9, 4)) < 0.3)["counts"].encode()
        data = bytearray(sound if number % 2 else rng.bytes(rng.integers(0, 12)))
        for _ in range(rng.integers(0, 3)):
            place = int(rng.integers(0, len(data) + 1))
            data[place : place + rng.integers(0, 2)] = bytes([rng.integers(48, 112)])
        counts = bytes(data) if number % 3 else data.decode("latin-1")
        try:
            mask = decode_rle({"size": [9, 4], "counts": counts})
        except ValueError as error:
            assert len(str(error).splitlines()) == 1
        else:
            masks += 1
            assert mask.shape == (9, 4) and mask.dtype == bool
            assert np.array_equal(mask, coco.decode({"size": [9, 4], "counts": counts}))
    assert 500 < masks < 2500
