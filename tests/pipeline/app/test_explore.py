"""What a page asks for: words as typed, cached views, clicks, files; without gradio."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.app import explore
from pipeline.app.explore import Explorer, Question, describe, draw, mask_at, parse_words, summary
from pipeline.drawing.picture import fit
from pipeline.files.label_png import read_index_png
from pipeline.segmenter import Segmenter

from ..drawing.test_picture import scene
from ..test_segmenter import assert_equal

WORDS = ("cat", "dog", "tree")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("person car", ["person", "car"]),
        (' "traffic light"\n sofa,couch ', ["traffic light", "sofa,couch"]),
        ('"sofa, couch" "driver\'s seat" 犬', ["sofa, couch", "driver's seat", "犬"]),
        (" \n", []),
        ("person, traffic light, sofa,couch,", ["person", "traffic light", "sofa,couch"]),
        ('"traffic light", person, "a, b"', ["traffic light", "person", "a, b"]),
        ("fox,\nwolf", ["fox", "wolf"]),
    ],
)
def test_words_are_typed_as_on_the_command_line(text, words):
    assert parse_words(text) == words


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("person,, car", "put spaces between classes"),
        ("person , , car", "put spaces between classes"),
        (",", "put spaces between classes"),
        ('"traffic light', "light: a quotation mark is not closed"),
        ("person @/etc/passwd", "reads no files"),
        ('" @words.txt"', "reads no files"),
    ],
)
def test_bad_words(text, message):
    with pytest.raises(ValueError, match=message):
        parse_words(text)


def test_a_typed_question():
    assert Question.typed("me", "a.png", 'person "traffic light"') == Question(
        "me", "a.png", ("person", "traffic light")
    )
    asked = Question.typed("me", "a.png", "cat, dog", "fox,vixen wolf", "cat=.3, dog=0.5")
    assert asked.not_words == ("fox,vixen", "wolf")
    assert asked.thresholds == {"cat": 0.3, "dog": 0.5}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("",), "type at least one word"),
        ((" \n", "fox"), "type at least one word"),
        (("cat", "fox,,wolf"), "'fox,,wolf': put spaces between classes"),
        (("cat", "@/etc/passwd"), "reads no files"),
        (("cat", "", "cat"), "threshold 'cat' is not CLASS=SHARE"),
        (("cat", "", "@/etc/passwd"), "reads no files"),
    ],
)
def test_badly_typed_questions(lines, message):
    with pytest.raises(ValueError, match=message):
        Question.typed("me", "a.png", *lines)


@pytest.fixture
def files(tmp_path) -> list[str]:
    """Two images, H != W."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / "one.png", tmp_path / "two.png"]
    for path, size in zip(paths, [(50, 70), (70, 40)], strict=True):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    return [str(path) for path in paths]


@pytest.fixture
def calls(random_segmenter, monkeypatch) -> list[str]:
    """The costly steps, as they are taken."""
    done = []

    def count(owner: object, name: str) -> None:
        original = getattr(owner, name)

        def counted(*args, **kwargs):
            done.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, counted)

    segmentor = type(random_segmenter.dense)
    count(segmentor, "encode")
    count(segmentor, "dense")
    count(type(random_segmenter.networks.network("sam2")), "forward_image")
    count(Segmenter, "masks")
    return done


def test_only_what_changed_is_computed_again(random_segmenter, files, calls):
    explorer = Explorer(random_segmenter)
    question = Question("me", files[0], WORDS)

    def taken(question: Question, arm: str, confidence: float) -> list[str]:
        calls.clear()
        explorer.look(question, arm, confidence)
        return [*calls]

    first = taken(question, "bilinear", 0.4)
    assert first == ["encode", "dense", "masks", "forward_image"]
    assert taken(question, "bilinear", 0.4) == []
    assert taken(question, "bilinear", 0.35) == ["masks"]
    assert taken(question, "loftup", 0.35) == ["dense", "masks"]
    assert taken(question, "bilinear", 0.35) == []  # what the other arm did not displace
    assert taken(Question("me", files[0], WORDS[:2]), "loftup", 0.35) == ["dense", "masks"]
    left_out = Question("me", files[0], WORDS[:2], not_words=WORDS[2:])
    assert taken(left_out, "loftup", 0.35) == ["dense", "masks"]
    own = dataclasses.replace(left_out, thresholds={"cat": 0.3})
    assert taken(own, "loftup", 0.35) == ["masks"]
    assert taken(own, "loftup", 0.35) == []
    assert taken(left_out, "loftup", 0.35) == ["masks"]
    assert taken(Question("me", files[1], WORDS[:2]), "loftup", 0.35)[:2] == ["encode", "dense"]


def test_results_are_the_segmenters(random_segmenter, files):
    explorer = Explorer(random_segmenter)
    question = Question("me", files[0], WORDS)
    explorer.look(question, "loftup", 0.9)
    image, found = explorer.look(question, "loftup", 0.4)
    alone = random_segmenter.segment(files[0], WORDS)
    assert len(alone)
    assert_equal(found, alone)
    assert np.array_equal(image, np.asarray(Image.open(files[0])))
    assert found.image_path == "one.png"  # not the server's folders
    assert found.settings["min_confidence"] == 0.4
    assert explorer.look(question, "bilinear", 0.4)[1].settings["upsampler"] == "bilinear"


def test_words_to_leave_out_and_thresholds_are_the_segmenters(random_segmenter, files):
    explorer = Explorer(random_segmenter)
    more = {"not_words": ("tree",), "thresholds": {"cat": 0.9}}
    question = Question("me", files[0], WORDS[:2], **more)
    explorer.look(dataclasses.replace(question, thresholds={}), "loftup", 0.4)
    found = explorer.look(question, "loftup", 0.4)[1]
    assert_equal(found, random_segmenter.segment(files[0], WORDS[:2], **more))
    assert found.settings["not_words"] == [["tree"]]
    assert found.settings["thresholds"] == {"cat": 0.9}
    again = explorer.look(question, "loftup", 0.3)[1]
    assert again.settings["min_confidence"] == 0.3


def test_visitors_do_not_see_one_another(random_segmenter, files, calls):
    explorer = Explorer(random_segmenter)
    mine, theirs = Question("me", files[0], WORDS), Question("they", files[1], WORDS[:2])
    before = explorer.look(mine, "bilinear", 0.4)[1]
    image, other = explorer.look(theirs, "bilinear", 0.4)
    assert image.shape[:2] == other.size == (70, 40) and other.class_names == WORDS[:2]
    calls.clear()
    explorer.look(mine, "bilinear", 0.5)
    again = explorer.look(mine, "bilinear", 0.4)[1]
    assert calls == ["masks"] * 2  # neither network's view was displaced
    assert_equal(again, before)


def test_memory_is_bounded(random_segmenter, files, calls):
    explorer = Explorer(random_segmenter, kept=1)
    mine, theirs = Question("me", files[0], WORDS), Question("they", files[1], WORDS)
    for question in (mine, mine, theirs, mine):
        explorer.look(question, "bilinear", 0.4)
    assert calls.count("encode") == 3  # the last visitor always stays
    explorer.leave("me")
    explorer.leave("nobody")
    explorer.look(mine, "bilinear", 0.4)
    assert calls.count("encode") == 4


def test_bad_words_are_refused_before_the_long_work(random_segmenter, files, calls):
    explorer = Explorer(random_segmenter)
    for words, more, message in [
        (("cat", "Cat"), {}, "given twice"),
        (("cat",), {"not_words": ("Cat",)}, "both wanted and not wanted"),
        (("cat",), {"thresholds": {"dog": 0.5}}, "no class 'dog' for a threshold"),
        (("cat",), {"thresholds": {"cat": 60}}, "between 0 and 1, got 60"),
    ]:
        with pytest.raises(ValueError, match=message):
            explorer.look(Question("me", files[0], words, **more), "bilinear", 0.4)
    assert calls == []


def test_a_word_of_two_classes_is_warned_of_once(random_segmenter, files, caplog):
    explorer = Explorer(random_segmenter)
    question = Question("me", files[0], ("cat,kitten", "dog,kitten"))
    for arm, confidence in [("bilinear", 0.4), ("loftup", 0.4), ("loftup", 0.5)]:
        explorer.look(question, arm, confidence)
    assert [r.getMessage() for r in caplog.records if "kitten" in r.getMessage()] == [
        "'kitten' belongs to 'cat' and 'dog': it counts for 'cat', which comes first"
    ]


def test_a_click_finds_the_mask_that_is_seen():
    # A dog under a small cat; a second dog, larger, hides nothing of either.
    image, found = scene(
        boxes=((20, 30, 90, 110), (40, 50, 60, 70), (10, 20, 190, 115)),
        class_ids=(0, 1, 0),
    )
    height, width = fit(found.size, explore.DRAWING)
    scale = width / found.size[1]
    found.label_map[50:70, 40:60] = 2
    assert mask_at(found, (50 * scale, 60 * scale)) == 1
    assert mask_at(found, (30 * scale, 60 * scale)) == 0
    assert mask_at(found, (150 * scale, 60 * scale)) == 2
    assert mask_at(found, (5 * scale, 5 * scale)) is None
    found.label_map[50:70, 40:60] = 1  # now the dog is what is seen there
    assert mask_at(found, (50 * scale, 60 * scale)) == 0
    # Edges: the first pixel of the cat, the last of the picture, and beyond it.
    assert mask_at(found, (20 * scale, 30 * scale)) == 0
    assert mask_at(found, (width - 1, height - 1)) is None
    assert mask_at(found, (width + 9, -3)) is None
    assert draw(image, found).shape == (height, width, 3)


def test_opacity_and_the_chosen_mask_are_drawn():
    image, found = scene()
    inside = tuple(int(v * fit(found.size, explore.DRAWING)[0] / 120) for v in (40, 30))
    clear, solid = draw(image, found, 0.0), draw(image, found, 1.0)
    assert (clear[inside] == image[0, 0]).all()
    assert (solid[inside] != image[0, 0]).any()
    chosen = draw(image, found, 0.0, selected=0)
    assert (chosen == 255).all(axis=2).sum() > (clear == 255).all(axis=2).sum() + 1000


def test_what_is_said_of_a_mask():
    _, found = scene(names=("dog", "<b>cat & co</b>"))
    said = describe(found, 0)
    assert "&lt;b&gt;cat &amp; co&lt;/b&gt;" in said and "<b>cat" not in said
    x, y = found.points[0][0]
    assert f"({x:.0f}, {y:.0f})" in said and "0.50" in said and "5600 pixels" in said
    counted = summary(found)
    assert "<b>1 mask</b>" in counted and "not found: dog" in counted and "<b>cat" not in counted
    _, nothing = scene(boxes=(), class_ids=())
    assert summary(nothing) == "Nothing found. Lower the confidence, or try other words."
    best = {"<i>": {"confidence": 0.523, "point": [411, 300]}}
    unsure = dataclasses.replace(nothing, settings={"not_found": best, "limits": "a & b"})
    assert summary(unsure) == (
        "Nothing found: best: &lt;i&gt; 0.52 at (411, 300). Lower the confidence, or try other "
        "words.<br>a &amp; b"
    )


def test_files_are_the_writers_own(tmp_path):
    image, found = scene()
    picture, data, labels = explore.save_files(tmp_path / "new", "photo", image, found)
    assert Image.open(picture).width > 760
    assert json.loads(Path(data).read_text(encoding="utf-8"))["class_pixels"] == {
        "dog": 0,
        "cat": 5600,
    }
    assert np.array_equal(read_index_png(labels), found.label_map)
