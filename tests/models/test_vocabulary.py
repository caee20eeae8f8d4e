"""What users type becomes classes, words and background, or one clear refusal."""

import logging

import open_clip
import pytest

from models.vocabulary import MAX_CLASSES, Vocabulary, parse_thresholds


def test_names_synonyms_and_indices():
    vocabulary = Vocabulary.parse([" cat ", "sofa, couch", "traffic   light"], ["sky", "wall "])
    assert vocabulary.class_names == ("cat", "sofa", "traffic light")
    assert vocabulary.words == (("cat",), ("sofa", "couch"), ("traffic light",))
    assert vocabulary.background == ("sky", "wall")
    assert vocabulary.query_words == ("cat", "sofa", "couch", "traffic light", "sky", "wall")
    assert vocabulary.word_class == (0, 1, 1, 2, 3, 3)
    assert vocabulary.background_index == 3
    assert len(vocabulary) == 3
    without = Vocabulary.parse(["cat", "dog,hound"])
    assert without.background_index is None and without.word_class == (0, 1, 1)


def test_class_name_need_not_be_a_word():
    vocabulary = Vocabulary(class_names=("boat",), words=(("ship",),))
    assert vocabulary.query_words == ("ship",)


def test_file_with_comments_blank_lines_and_byte_order_mark(tmp_path):
    path = tmp_path / "wörter 词.txt"
    text = "\ufeffcat\n\n# animals end here\n  sofa,couch  \r\n"
    text += "\ufeffC# book\n\ufeff# more\n\ufeff\nцвет\n"  # joined of several files
    path.write_bytes(text.encode("utf-8"))
    vocabulary = Vocabulary.parse(["person", f"@{path}", "car"])
    assert vocabulary.class_names == ("person", "cat", "sofa", "C# book", "цвет", "car")
    assert vocabulary.words[2] == ("sofa", "couch")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"# nothing\n\n", "names no class"),
        ("Bäume".encode("latin-1"), "not UTF-8"),
        (b"cat\ndog,,hound\n", "line 2: blank word"),
        (b"cat\n@other.txt\n", "line 2: .*cannot name another"),
        (b'cat\n"sofa,couch"\n', "line 2: remove the quotes"),
    ],
)
def test_bad_files(tmp_path, content, message):
    path = tmp_path / "words.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        Vocabulary.parse([f"@{path}"])
    assert "words.txt" in str(error.value) and "\n" not in str(error.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"not found: '.*no\.txt'"):
        Vocabulary.parse([f"@{tmp_path}/no.txt"])
    for entry in ("@", f"@{tmp_path}"):
        with pytest.raises(ValueError, match="must name a text file"):
            Vocabulary.parse([entry])


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "vocabulary is empty"),
        (["cat", " "], "blank word"),
        (["sofa,,couch"], "blank word"),
        (["sofa,"], "blank word"),
        (["cat", "dog", "Cat"], "class 'Cat' is given twice"),
        (["sofa,couch,COUCH"], "word 'COUCH' is given twice for class 'sofa'"),
        (["sofa,sofa"], "word 'sofa' is given twice for class 'sofa'"),
        ("cat", "must be a list of words, got the string 'cat'"),
        ([3], "vocabulary entry 3"),
    ],
)
def test_refused(entries, message):
    with pytest.raises(ValueError, match=message):
        Vocabulary.parse(entries)


def test_too_many_classes():
    names = [f"thing {i}" for i in range(MAX_CLASSES)]
    assert len(Vocabulary.parse(names)) == 65_534
    for more in ({"entries": [*names, "one more"]}, {"entries": names, "not_words": ["fox"]}):
        with pytest.raises(ValueError, match="65535 classes; at most 65534"):
            Vocabulary.parse(**more)


def test_a_shared_word_counts_for_the_first_class(caplog):
    with caplog.at_level(logging.WARNING):
        vocabulary = Vocabulary.parse(["sofa,seat", "Seat,chair", "stool,chair"])
    assert vocabulary.class_names == ("sofa", "Seat", "stool")
    assert vocabulary.words == (("sofa", "seat"), ("chair",), ("stool",))
    assert [record.getMessage() for record in caplog.records] == [
        "'Seat' belongs to 'sofa' and 'Seat': it counts for 'sofa', which comes first",
        "'chair' belongs to 'Seat' and 'stool': it counts for 'Seat', which comes first",
    ]
    caplog.clear()
    Vocabulary.parse(["sofa,seat", "chair,stool"])
    assert not caplog.records
    with pytest.raises(ValueError, match="'couch' has no word of its own, all are of 'sofa'"):
        Vocabulary.parse(["sofa,couch", "couch"])
    assert not caplog.records  # one line, not two


def test_what_is_not_wanted_comes_between_classes_and_background(tmp_path):
    (tmp_path / "not.txt").write_text("sky\nwall,fence\n")
    vocabulary = Vocabulary.parse(
        ["cat", "dog,hound"], ["road", "Sky,tree"], not_words=["fox", f"@{tmp_path}/not.txt"]
    )
    assert vocabulary.class_names == ("cat", "dog") and len(vocabulary) == 2
    assert vocabulary.not_words == (("fox",), ("sky",), ("wall", "fence"))
    assert vocabulary.background == ("road", "tree")  # what the user names is not background
    words = ("cat", "dog", "hound", "fox", "sky", "wall", "fence", "road", "tree")
    assert vocabulary.query_words == words
    assert vocabulary.word_class == (0, 1, 1, 2, 3, 4, 4, 5, 5)
    assert vocabulary.background_index == 5
    assert vocabulary.competitors == ("cat", "dog", "fox", "sky", "wall", "background")
    without = Vocabulary.parse(["cat"], not_words=["fox"])
    assert without.background_index is None and without.competitors == ("cat", "fox")


@pytest.mark.parametrize(
    ("entries", "not_words", "message"),
    [
        (["cat"], ["Cat"], "'Cat' is both wanted and not wanted; remove one"),
        (["sofa,couch"], ["bed,couch"], "'couch' is both wanted and not wanted"),
        (["cafe\u0301"], ["caf\u00e9"], "'caf\u00e9' is both wanted and not wanted"),
        (["cat"], ["fox", "dog,Fox"], "not-word 'Fox' is given twice"),
        (["cat"], ["fox,"], "blank word in not-words entry 'fox,'"),
        (["cat"], "fox", "the not-words must be a list of words"),
    ],
)
def test_not_words_refused(entries, not_words, message):
    with pytest.raises(ValueError, match=message):
        Vocabulary.parse(entries, not_words=not_words)


def test_thresholds():
    vocabulary = Vocabulary.parse(
        ["cat", "Dog,hound", "a=b"], ["sky"], not_words=["fox"], thresholds={"dog": 0, "a=b": 0.9}
    )
    assert vocabulary.thresholds == (None, 0, 0.9)
    assert vocabulary.own_thresholds == {"Dog": 0, "a=b": 0.9}
    assert vocabulary.confidences(0.7) == (0.7, 0, 0.9, 0.7, 0.7)
    assert Vocabulary.parse(["cat", "dog"], ["sky"]).confidences(0.7) == 0.7


def test_typed_thresholds():
    assert parse_thresholds(["dog=0.5", "a=b=1", "traffic light=.3"]) == {
        "dog": 0.5, "a=b": 1, "traffic light": 0.3,
    }  # fmt: skip
    assert parse_thresholds([]) == {}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (["dog"], "threshold 'dog' is not CLASS=SHARE; write person=0.6"),
        (["dog=high"], "threshold 'dog=high' is not CLASS=SHARE"),
        (["dog=0.5,"], "threshold 'dog=0.5,' is not CLASS=SHARE"),
        (["0.5"], "threshold '0.5' is not CLASS=SHARE"),
        (["dog=0.5", "cat=0.5", "dog=0.6"], "class 'dog' has two thresholds; remove one"),
    ],
)
def test_bad_typed_thresholds(entries, message):
    with pytest.raises(ValueError, match=message):
        parse_thresholds(entries)


@pytest.mark.parametrize(
    ("thresholds", "message"),
    [
        ({"dgo": 0.5}, "no class 'dgo' for a threshold; the nearest is 'dog'"),
        ({"Hound": 0.5}, "no class 'Hound' for a threshold; the nearest is 'dog'"),
        ({"": 0.5}, "no class '' for a threshold; the nearest is"),
        ({"fox": 0.5}, "no class 'fox' for a threshold"),
        ({"dog": 0.5, "DOG": 0.6}, "class 'DOG' has two thresholds; remove one"),
        ({"dog": 1.1}, "threshold of 'dog' must be between 0 and 1, got 1.1"),
        ({"dog": float("nan")}, "threshold of 'dog' must be between 0 and 1, got nan"),
    ],
)
def test_thresholds_refused(thresholds, message):
    with pytest.raises(ValueError, match=message):
        Vocabulary.parse(["cat", "dog,hound"], not_words=["fox"], thresholds=thresholds)


def test_what_words_may_hold(tmp_path):
    words = ["L'Été", 'a 6" pipe', "“Mona”", "犬，狗", "🛋️", "a\u00a0\u3000b", "x=1", "#5", "-5"]
    vocabulary = Vocabulary.parse(words)
    assert vocabulary.class_names == (*words[:5], "a b", *words[6:])
    (tmp_path / "words").write_text("\n".join(words[:7]) + "\n-5\n", encoding="utf-8")
    from_file = Vocabulary.parse([f"@{tmp_path}/words"])
    assert from_file.class_names == (*words[:5], "a b", "x=1", "-5")
    comma = Vocabulary(class_names=("D.C.",), words=(("Washington, D.C.",),))
    assert comma.query_words == ("Washington, D.C.",)  # in Python only
    assert Vocabulary.parse(["cafe\u0301"]).class_names == ("caf\u00e9",)
    with pytest.raises(ValueError, match="'Café' is given twice"):
        Vocabulary.parse(["cafe\u0301", "Caf\u00e9"])


def test_classes_win_over_background(caplog):
    with caplog.at_level(logging.INFO):
        vocabulary = Vocabulary.parse(["Tree", "house,building"], ["sky", "tree", "building"])
    assert vocabulary.background == ("sky",)
    assert vocabulary.query_words == ("Tree", "house", "building", "sky")
    assert "tree, building" in caplog.text
    assert Vocabulary.parse(["tree"], ["tree"]).background_index is None


def test_direct_construction_is_checked():
    with pytest.raises(ValueError, match="2 class names need as many groups of words, got 1"):
        Vocabulary(class_names=("a", "b"), words=(("a",),))
    with pytest.raises(ValueError, match="class 'a' needs a tuple of words"):
        Vocabulary(class_names=("a",), words=((),))
    with pytest.raises(ValueError, match="background word 'Sky' is given twice"):
        Vocabulary(class_names=("a",), words=(("a",),), background=("sky", "Sky"))
    with pytest.raises(ValueError, match="1 classes need as many thresholds or none, got 2"):
        Vocabulary(class_names=("a",), words=(("a",),), thresholds=(0.5, None))
    with pytest.raises(ValueError, match="'b' is both wanted and not"):
        Vocabulary(class_names=("a",), words=(("a", "b"),), not_words=(("b",),))


def test_odd_but_usable_words():
    words = ["--help", 'it\'s "so"', "naïve 猫 🐈", "two\nlines", "%s {0} \\", "a" * 5000, "\0"]
    vocabulary = Vocabulary.parse(words, ["\tsky  blue "])
    assert vocabulary.class_names == (*words[:3], "two lines", *words[4:])
    assert vocabulary.background == ("sky blue",)


def test_what_is_no_text_is_refused(tmp_path):
    undecodable = b"caf\xe9".decode("utf-8", errors="surrogateescape")  # as the shell hands it over
    for words, background in (([undecodable], ()), (["cat"], [undecodable])):
        with pytest.raises(ValueError, match=r"word 'caf\\udce9' is no valid text; .* UTF-8"):
            Vocabulary.parse(words, background)
    with pytest.raises(FileNotFoundError, match="vocabulary file not found: '~nobody-here/words'"):
        Vocabulary.parse(["@~nobody-here/words"])


@pytest.mark.parametrize(
    ("entry", "apart", "together"),
    [
        ("person, car, tree", "write person car tree", '"person,car,tree"'),
        (" person, traffic  light,", 'write person "traffic light"', '"person,traffic light"'),
        ("person. car.", "write person car", '"person,car"'),
        ("cat. traffic light. tree", 'write cat "traffic light" tree', '"cat,traffic light,tree"'),
        ("cat; dog", "write cat dog", '"cat,dog"'),
        ("cat\ndog\n", "write cat dog", '"cat,dog"'),
    ],
)
def test_a_list_in_one_entry_is_asked_about(tmp_path, entry, apart, together):
    with pytest.raises(ValueError, match="is one entry") as caught:
        Vocabulary.parse([entry])
    message = str(caught.value)
    assert apart in message and together in message and "\n" not in message


def test_what_is_no_list_of_classes():
    for entry in ("sofa,couch", "St. Bernard", "Washington D.C.", "cat.", "犬，狗", "2,5 mm"):
        assert len(Vocabulary.parse([entry])) == 1
    assert Vocabulary.parse(["cat"], ["sky, road"]).background == ("sky", "road")


def test_a_dict_names_synonyms():
    synonyms = {"sofa": ["couch", "Sofa"], "cat": (), "D.C.": "Washington, D.C."}
    vocabulary = Vocabulary.parse(synonyms, not_words={"bus": ["coach"]})
    assert vocabulary.words == (("sofa", "couch"), ("cat",), ("D.C.", "Washington, D.C."))
    assert vocabulary.not_words == (("bus", "coach"),)
    for bad in ({"sofa": {"couch", "settee"}}, {"sofa": None}, {"sofa": [3]}, {"": ["couch"]}):
        with pytest.raises(ValueError, match=r"the vocabulary entry .*|list of synonyms"):
            Vocabulary.parse(bad)


@pytest.mark.parametrize("words", [{"cat", "dog"}, frozenset({"cat"}), None, 3])
def test_what_has_no_order_is_refused(words):
    with pytest.raises(ValueError, match="must be a list of words, whose order is that of"):
        Vocabulary.parse(words)


SAME_TO_CLIP = [
    ("cat", "ｃａｔ"), ("driver's seat", "Driver’s  seat"), ("a & b", "a &amp;amp; b"),
    ("ﬁre", "fire"), ('"Mona"', "“mona”"), ("t-shirt", "T - shirt"), ("x²", "x ²"),
    ("route 66", "route 6 6"), ("driver's seat", "driver 's seat"), ("a_b", "a _ b"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), SAME_TO_CLIP)
def test_words_that_the_tokenizer_makes_equal_are_one(one, other):
    tokens = open_clip.get_tokenizer("ViT-B-16")([one, other])
    assert tokens[0].equal(tokens[1])
    with pytest.raises(ValueError, match="is given twice"):
        Vocabulary.parse([one, other])
    with pytest.raises(ValueError, match="both wanted and not"):
        Vocabulary.parse([one], not_words=[other])
    assert Vocabulary.parse([one], [other, "sky"]).background == ("sky",)
    assert Vocabulary.parse([one], thresholds={other: 0.5}).thresholds == (0.5,)


@pytest.mark.parametrize("pair", [("t-shirt", "t shirt"), ("a--b", "a - - b"), ("7", "77")])
def test_words_that_the_tokenizer_tells_apart_are_two(pair):
    tokens = open_clip.get_tokenizer("ViT-B-16")(list(pair))
    assert not tokens[0].equal(tokens[1])
    assert len(Vocabulary.parse(pair)) == 2


def test_a_background_that_nobody_named():
    open_ = Vocabulary(("cat",), (("cat",),))
    assert open_.background is None and open_.query_words == ("cat",)
    assert open_.background_index is None and open_.word_class == (0,)
    assert open_.with_background(["sky", "Cat"]).background == ("sky",)
    assert Vocabulary.parse(["cat"]).background == ()
