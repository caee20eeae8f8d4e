"""The published protocols, word for word."""

from dataclasses import replace

import pytest

from models.protocols import (
    PROTOCOLS,
    class_names,
    get_protocol,
    read_words,
    rendered,
    rendered_names,
)
from models.published import FIGURES, SETTINGS
from models.vocabulary import Vocabulary
from pipeline.world.scenes import VOC_NOUNS, load_world

VOC = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip

# Classes of each data set.
CLASSES = {
    "voc21": 20, "voc20": 20, "context60": 59, "context59": 59, "coco_object": 80,
    "coco_stuff": 171, "cityscapes": 19, "ade20k": 150,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "logit_scale", "prob_thd", "area_thd", "window", "pamr"),
    [
        ("sclip-voc21", 65, 0.1, 0.1, 224, False),
        ("sclip-voc20", 40, 0, 0, 224, False),
        ("proxyclip-voc21", 40, 0.2, 0, 336, False),
        ("proxyclip-voc20", 40, 0, 0, 336, False),
        ("naclip-voc21", 40, 0.1, 0, None, True),
        ("naclip-voc20", 40, 0, 0, None, True),
        ("plain-voc21", 65, 0.1, 0.1, 224, False),
        ("plain-voc20", 40, 0, 0, 224, False),
    ],
)
def test_published_numbers(name, logit_scale, prob_thd, area_thd, window, pamr):
    protocol = get_protocol(name)
    assert (protocol.logit_scale, protocol.prob_thd, protocol.area_thd) == (
        logit_scale, prob_thd, area_thd,
    )  # fmt: skip
    assert (protocol.short_side, protocol.long_side) == (336, 2048)
    assert (protocol.window, protocol.stride, protocol.pamr) == (window, 112, pamr)
    assert protocol.pamr_original and protocol.drop_remainder == name.startswith("naclip")
    assert protocol.class_names == VOC
    background = {"plain-voc21": 1}.get(name, 26) if name.endswith("voc21") else 0
    assert len(protocol.background) == background


@pytest.mark.parametrize(
    ("name", "short_side", "window", "stride", "logit_scale", "prob_thd", "background"),
    [
        ("sclip-context60", 336, 224, 112, 50, 0.1, 1),
        ("sclip-context59", 336, 224, 112, 40, 0, 0),
        ("sclip-coco_object", 336, 224, 112, 50, 0.1, 26),
        ("sclip-coco_stuff", 448, 224, 112, 40, 0, 0),
        ("sclip-cityscapes", 560, 224, 112, 40, 0, 0),
        ("sclip-ade20k", 336, 224, 112, 40, 0, 0),
        ("naclip-context60", 336, 224, 112, 40, 0.1, 1),
        ("naclip-coco_object", 336, 224, 112, 40, 0.1, 26),
        ("naclip-cityscapes", 560, 224, 112, 40, 0, 0),
        ("clearclip-voc21", 448, 448, 224, 50, 0.5, 1),
        ("clearclip-context60", 448, 448, 224, 50, 0.15, 1),
        ("clearclip-coco_object", 448, 448, 224, 50, 0.4, 1),
        ("clearclip-cityscapes", 448, 224, 224, 50, 0, 0),
        ("proxyclip-context60", 336, 336, 112, 40, 0.15, 1),
        ("proxyclip-coco_object", 336, 336, 112, 40, 0.25, 17),
        ("proxyclip-coco_stuff", 336, 336, 112, 40, 0, 0),
        ("proxyclip-cityscapes", 448, 224, 112, 40, 0, 0),
        ("proxyclip-ade20k", 448, 336, 112, 40, 0, 0),
        ("corrclip-voc21", 336, 336, 112, 40, 0.2, 26),
        ("corrclip-coco_object", 336, 336, 112, 40, 0.25, 16),
        ("corrclip-ade20k", 448, 336, 112, 40, 0, 0),
    ],
)
def test_published_numbers_of_all_data_sets(
    name, short_side, window, stride, logit_scale, prob_thd, background
):
    protocol = get_protocol(name)
    assert (protocol.short_side, protocol.window, protocol.stride) == (short_side, window, stride)
    assert (protocol.logit_scale, protocol.prob_thd) == (logit_scale, prob_thd)
    assert len(protocol.background) == background and protocol.area_thd == 0
    assert protocol.pamr == name.startswith("naclip")


def test_words_follow_the_labels():
    """The words of a class stand where its label does, in every list."""
    for name, protocol in PROTOCOLS.items():
        method, _, data = name.partition("-")
        if method in SETTINGS and not data.startswith("voc"):
            own = zip(protocol.class_names, protocol.words, strict=True)
            assert all(label in words or label == "person" for label, words in own), name
    stuff, things = class_names("coco_stuff"), class_names("coco_object")
    assert [n.replace(" ", "") for n in things] == list(stuff[:80])
    assert (stuff[80], stuff[-1]) == ("banner", "wood")
    assert class_names("cityscapes")[:3] == ("road", "sidewalk", "building")
    ade = class_names("ade20k")
    assert (ade[0], ade[12], ade[149]) == ("wall", "person", "flag")


def test_figures():
    found = {f.protocol: f for f in FIGURES if "dinov2" not in f.arm}
    assert len(found) == 40 and len(FIGURES) == 46 and found.keys() <= PROTOCOLS.keys()
    upsampled = {(f.protocol, f.arm.rpartition("=")[2]): f.miou for f in FIGURES[40:]}
    assert upsampled["proxyclip-coco_stuff", "loftup"] == 27.82
    assert upsampled["proxyclip-ade20k", "bilinear"] == 19.53
    assert (found["sclip-voc21"].miou, found["sclip-voc21"].arm) == (59.63, "bilinear")
    assert (found["sclip-ade20k"].miou, found["naclip-cityscapes"].miou) == (16.45, 38.27)
    assert (found["corrclip-voc20"].miou, found["proxyclip-coco_stuff"].miou) == (88.8, 26.5)
    means = {"sclip": 39.1, "naclip": 42.5, "corrclip": 51.0}
    for method, mean in means.items():
        values = [f.miou for f in found.values() if f.protocol.startswith(f"{method}-")]
        assert len(values) == 8 and sum(values) / 8 == pytest.approx(mean, abs=0.06)


def test_rendered_words():
    protocol = rendered(get_protocol("clearclip-coco_object"))
    assert protocol.name == "clearclip-coco_object-rendered"
    assert (protocol.window, protocol.prob_thd, len(protocol.words)) == (448, 0.4, 80)
    assert protocol.class_names[:2] == ("person", "bicycle") and "sky" in protocol.background
    assert rendered(get_protocol("sclip-voc20")).background == ()
    names = {name for words in load_world().names.values() for name in words}
    names |= {name for words in load_world().stuff for name in words}
    for data in CLASSES:
        if not data.startswith("voc"):
            assert len(set(rendered_names(data))) == CLASSES[data]
            assert set(rendered_names(data)) <= names
    with pytest.raises(ValueError, match="protocol 'tiny' is for no data set"):
        rendered(get_protocol("tiny"))


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


def test_words_of_the_followers():
    sclip, plain = get_protocol("sclip-voc21"), get_protocol("plain-voc21")
    for name in ("naclip-voc21", "naclip-voc20"):
        assert get_protocol(name).words == sclip.words
    for name in ("proxyclip-voc21", "proxyclip-voc20"):
        words = get_protocol(name).words
        assert all(len(group) == 1 for group in words)
        others = {"boat": "ship", "diningtable": "table"}
        assert words == tuple((others.get(voc, voc),) for voc in VOC)
    for name in ("naclip-voc21", "proxyclip-voc21"):
        assert get_protocol(name).background == sclip.background
    assert plain.words == get_protocol("plain-voc20").words == tuple((voc,) for voc in VOC)
    assert plain.background == ("background",)


def test_rendered_voc_has_the_classes_and_surfaces_of_the_rendered_world():
    rendered, tiny = get_protocol("rendered-voc"), get_protocol("tiny")
    assert rendered.class_names == VOC_NOUNS and len(rendered.words) == 19
    assert rendered.words == tuple((voc,) for voc in VOC if voc != "diningtable")
    # Synonyms are merged for users; here no class has any. And users have larger photographs.
    users = {"merge_synonyms": True, "pamr_original": False}
    assert replace(rendered, name="tiny", class_names=(), words=(), **users) == tiny


def test_synonyms_are_merged_where_no_paper_says_otherwise():
    assert {name for name, known in PROTOCOLS.items() if known.merge_synonyms} == {"open", "tiny"}


def test_other_words_for_the_rendered_classes():
    """Each stands for the class of its line, and is no other name of it."""
    own = get_protocol("rendered-voc")
    names = load_world().names
    for kind in ("synonyms", "plurals"):
        protocol = get_protocol(f"rendered-voc-{kind}")
        other = {"words": own.words, "name": own.name}
        assert replace(protocol, **other) == own
        for name, words in zip(protocol.class_names, protocol.words, strict=True):
            assert set(words) <= set(names[name])
            assert name not in words or name in ("bird", "sheep")  # which have no other


def test_vocabulary():
    vocabulary = get_protocol("sclip-voc21").vocabulary()
    assert vocabulary.class_names == VOC and vocabulary.background_index == 20
    assert vocabulary.words[3] == ("ship",) and vocabulary.background[-1] == "fence"
    assert get_protocol("naclip-voc20").vocabulary().background_index is None
    for name, protocol in PROTOCOLS.items():
        if name not in ("open", "tiny"):
            data = name.partition("-")[2]
            count = 19 if name.startswith("rendered-voc") else CLASSES[data]
            assert len(protocol.vocabulary()) == count
    message = "protocol 'open' has no classes of its own; those with: sclip-voc21, .*-voc-plurals$"
    with pytest.raises(ValueError, match=message):
        get_protocol("open").vocabulary()


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
    with pytest.raises(ValueError, match="unknown protocol 'voc'; valid: sclip-voc21, -voc20, "):
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
        ({"class_names": VOC[1:]}, "19 class_names need as many groups of words, got 20"),
        ({"class_names": ()}, "0 class_names need as many groups of words, got 20"),
    ],
)
def test_impossible_settings(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(get_protocol("sclip-voc21"), **changes)
