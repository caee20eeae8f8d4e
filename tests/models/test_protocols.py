"""The published protocols, word for word."""

from dataclasses import replace

import pytest

from models.protocols import PROTOCOLS, get_protocol, read_words
from models.vocabulary import Vocabulary
from pipeline.world import load_world

VOC = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip


def test_published_numbers():
    voc21, voc20 = get_protocol("sclip-voc21"), get_protocol("sclip-voc20")
    assert (voc21.logit_scale, voc21.prob_thd, voc21.area_thd) == (65, 0.1, 0.1)
    assert (voc20.logit_scale, voc20.prob_thd, voc20.area_thd) == (40, 0, 0)
    for protocol in (voc21, voc20):
        assert (protocol.short_side, protocol.long_side) == (336, 2048)
        assert (protocol.window, protocol.stride) == (224, 112)


def test_published_words():
    voc21, voc20 = get_protocol("sclip-voc21"), get_protocol("sclip-voc20")
    assert voc21.background == (
        "sky", "wall", "tree", "wood", "grass", "road", "sea", "river", "mountain", "sands",
        "desk", "bed", "building", "cloud", "lamp", "door", "window", "wardrobe", "ceiling",
        "shelf", "curtain", "stair", "floor", "hill", "rail", "fence",
    )  # fmt: skip
    assert voc20.background == ()
    assert voc21.words == voc20.words and len(voc20.words) == len(VOC)
    clothes = ("shirt", "jeans", "dress", "sweater", "skirt", "jacket")
    special = {
        "boat": ("ship",),
        "diningtable": ("table",),
        "person": ("person", *(f"person in {x}" for x in clothes)),
        "tvmonitor": ("television monitor", "tv monitor", "monitor", "television", "screen"),
    }
    for name, words in zip(VOC, voc20.words, strict=True):
        assert words == special.get(name, (name,))
    vocabulary = Vocabulary(VOC, voc21.words, voc21.background)
    assert len(vocabulary.query_words) == 20 + 6 + 4 + 26 and vocabulary.background_index == 20


def test_free_vocabularies():
    assert get_protocol("open").background == get_protocol("sclip-voc21").background
    surfaces = [word for words in load_world().stuff for word in words]
    assert list(get_protocol("tiny").background) == ["background", *surfaces]
    for name in ("open", "tiny"):
        protocol = get_protocol(name)
        assert (protocol.logit_scale, protocol.prob_thd, protocol.area_thd) == (40, 0, 0)
        assert protocol.words == ()
        assert Vocabulary.parse(["person"], protocol.background).background == protocol.background


def test_names_are_keys():
    assert all(name == protocol.name for name, protocol in PROTOCOLS.items())
    with pytest.raises(ValueError, match="unknown protocol 'voc'; valid: sclip-voc21, sclip-voc20"):
        get_protocol("voc")


def test_background_line_comes_first_in_voc21():
    assert read_words("voc21")[1:] == read_words("voc20")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"logit_scale": 0}, "logit_scale must be positive, got 0"),
        ({"prob_thd": 1.0}, r"prob_thd must be in \[0, 1\), got 1.0"),
        ({"background": ()}, "prob_thd 0.1 needs background words"),
        ({"stride": 225}, "leaves gaps"),
        ({"window": 0}, "window must be at least 1"),
        ({"long_side": 300}, "long_side 300"),
    ],
)
def test_impossible_settings(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(get_protocol("sclip-voc21"), **changes)
