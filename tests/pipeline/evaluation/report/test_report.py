"""The report says what the numbers say, gains and losses alike, in tables that hold together."""

import re

import pytest

from pipeline.evaluation.report.numbers import (
    class_differences,
    difference,
    number,
    seconds,
    signed,
    stages,
    verdict,
)
from pipeline.evaluation.report.report import markdown

from .made_up import LABELS, make_results, make_timings

ARMS = ("bilinear", "loftup", "maskclip", "loftup+sam2")
GAINS = {"bilinear": 0.0, "loftup": 6.0, "maskclip": -4.0, "loftup+sam2": 0.5}


def tables(text: str) -> list[list[list[str]]]:
    """Every table as rows of cells, the line of dashes left out."""
    blocks = re.findall(r"(?:^\|.*\|\n)+", text, flags=re.MULTILINE)
    return [
        [
            [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            for line in block.splitlines()
            if not set(line) <= set("|- ")
        ]
        for block in blocks
    ]


def table(text: str, heading: str) -> list[list[str]]:
    return tables(text.split(f"\n## {heading}\n")[1])[0]


def line(text: str, start: str) -> str:
    return next(row for row in text.splitlines() if row.startswith(start))


@pytest.mark.parametrize("arms", [("bilinear",), ARMS[:2], ARMS])
@pytest.mark.parametrize("sizes", [True, False])
def test_tables_hold_together_and_nothing_is_nan(arms, sizes):
    results = make_results(arms, gains=GAINS, sizes=sizes, failed=[("2008_1", "a | b\nc")])
    for timings in ({}, make_timings(arms)):
        text = markdown(results, timings)
        assert "nan" not in text.lower() and "None" not in text
        found = tables(text)
        assert len(found) == 3 + sizes + (len(arms) > 1) + ("loftup+sam2" in arms) + bool(timings)
        for rows in found:
            assert len(rows) > 1 and {len(row) for row in rows} == {len(rows[0])}


def test_header_prints_every_setting():
    text = markdown(make_results(), {})
    rows = dict(table(text, "Settings"))
    assert rows["images"] == "1449 listed, 200 asked for, 200 scored (a part of the split)"
    assert rows["root"] == r"/data/VOC\|2012"
    assert rows["limit"] == "none" and rows["preset"] == "tiny" and rows["device"] == "cpu"
    assert rows["protocol: logit_scale"] == "65" and rows["protocol: prob_thd"] == "0.1"
    assert rows["protocol: window"] == "224" and rows["protocol: pamr"] == "off"
    assert rows["protocol: background"].startswith("sky, wall, tree, wood,")
    assert "boat: ship; bottle: bottle;" in rows["protocol: words"]
    assert "person: person, person in shirt," in rows["protocol: words"]
    assert "min_confidence: 0.7" in rows["config"] and "use_pamr: off" in rows["config"]
    assert rows["versions"] == "python: 3.12.3, torch: 2.14.0" and rows["commit"] == "456fe1b"


def test_long_settings_are_cut_and_say_so():
    results = make_results()
    results["settings"]["list"] = ["word"] * 500
    cell = dict(table(markdown(results, {}), "Settings"))["list"]
    assert len(cell) < 700 and cell.endswith("… (2998 characters; whole in results.json)")


def test_failed_images_come_first():
    text = markdown(make_results(failed=[("2008_7", "cut off"), ("2008_9", "no file")]), {})
    lines = [row for row in text.splitlines() if row]
    assert lines[1].startswith("**2 of 200 images could not be scored")
    assert lines[2:4] == ["- `2008_7`: cut off", "- `2008_9`: no file"]
    assert "could not be scored" not in markdown(make_results(), {})


def test_main_table():
    rows = table(markdown(make_results(ARMS, gains=GAINS), {}), "Result")
    assert rows[0] == [
        "arm", "mIoU [95 % interval]", "boundary IoU", "edge mIoU", "mAcc", "aAcc",
    ]  # fmt: skip
    assert rows[1] == ["`bilinear`", "45.00 [42.50, 47.20]", "27.00", "24.75", "54.00", "67.50"]
    assert rows[2][:3] == ["`loftup`", "**51.00** [48.50, 53.20]", "**30.60**"]


def test_differences_in_words():
    results = make_results(ARMS, gains=GAINS)
    rows = {row[0]: row[1:] for row in table(markdown(results, {}), "Differences of pairs")}
    assert len(rows) == 1 + 6
    assert rows["`loftup - bilinear`"][0] == "+6.00 [+4.80, +7.30] gain"
    assert rows["`maskclip - bilinear`"][2] == "−6.00 [−7.20, −4.70] loss"
    assert rows["`loftup+sam2 - bilinear`"][0] == "+0.50 [−0.70, +1.80] cannot be told apart"


def test_sentences_tell_gains_losses_and_neither():
    text = markdown(make_results(ARMS, gains=GAINS), make_timings(ARMS))
    wins, loses, open_ = (line(text, f"- **`{arm}`**") for arm in ARMS[1:])
    assert "gains 6.00 of mIoU (+4.80 to +7.30), 3.60 of boundary IoU" in wins
    assert "loses" not in wins
    assert "better in 17 (horse +12.8) and worse in 3 (bus −1.6) of 20 classes" in wins
    assert "takes 0.82 s per image instead of 0.30 s" in wins
    assert "loses 4.00 of mIoU (−5.20 to −2.70)" in loses and "gains" not in loses
    assert "takes as long" in loses
    assert "cannot be told apart by +0.50 of mIoU (−0.70 to +1.80)" in open_


def test_a_later_baseline_turns_the_signs():
    results = make_results(("loftup", "bilinear"), gains={"loftup": 0.0, "bilinear": 5.0})
    results["settings"]["baseline"] = "bilinear"
    assert difference(results, "loftup", "bilinear", "mIoU") == (-5.0, -6.3, -3.8)
    assert "loses 5.00 of mIoU (−6.30 to −3.80)" in markdown(results, {})


def test_sizes_prompts_and_times():
    text = markdown(make_results(), make_timings())
    rows = table(text, "By size of the object")
    assert rows[0][1:3] == ["under 100 px² (0 objects)", "100 px² to 32² (214 objects)"]
    assert rows[1] == [
        "`bilinear`", "– / – / –", "13.5 / 18.5 / 13.0", "36.0 / 41.0 / 35.5", "49.5 / 54.5 / 49.0",
    ]  # fmt: skip
    rows = table(text, "Prompts and SAM 2's masks")
    expected = ["`loftup+sam2`", "5.4", "99.5", "1080", "66.9", "1000", "5.3", "81.0", "62.0"]
    assert rows[1] == [*expected, "0.55"] and len(rows) == 2
    rows = {row[0]: row[1:] for row in table(text, "Time")}
    assert rows["LoftUp"] == ["–", "0.520", "0.520"]
    assert rows["**sum**"] == ["**0.300**", "**0.820**", "**1.830**"]


def test_classes():
    results = make_results(("a", "b", "c"))
    for arm, value in (("a", 70.0), ("b", 30.04), ("c", 70.0)):
        results["arms"][arm]["per_class"]["cat"] = value
    text = markdown(results, {})
    rows = {row[0]: row[1:] for row in table(text, "By class")}
    assert list(rows) == ["class", *LABELS]
    assert rows["cat"] == ["**70.0**", "30.0", "**70.0**"]
    assert rows["diningtable"] == ["–", "–", "–"]
    lost = line(text, "- `b`: ")
    assert lost.startswith("- `b`: cat −40.0, ") and "sofa −1.5" in lost
    assert "cat" not in line(text, "- `c`: ")


def test_labels_the_protocol_leaves_out_have_no_row():
    results = make_results()
    for arm in results["arms"].values():
        del arm["per_class"]["background"]
    rows = table(markdown(results, {}), "By class")
    assert [row[0] for row in rows] == ["class", *LABELS[1:]]


def test_another_data_set():
    results = make_results(("a", "b"))
    results["settings"]["dataset"], results["labels"] = "Street", ["road", "sky"]
    for arm in results["arms"].values():
        arm["per_class"] = {"road": 50.0, "sky": None}
    text = markdown(results, {})
    assert text.startswith("# Street benchmark: sclip-voc21\n")
    assert [row[0] for row in table(text, "By class")] == ["class", "road", "sky"]


def test_metrics_that_do_not_exist():
    results = make_results(("a", "b"))
    for arm in results["arms"].values():
        arm["edge_mIoU"] = None
    results["differences"]["b - a"]["edge_mIoU"] = dict.fromkeys(("difference", "low", "high"))
    results["settings"]["baseline"] = "b"
    text = markdown(results, {})
    assert "nan" not in text.lower() and "None" not in text
    assert "cannot be told apart by – of edge mIoU (– to –)" in text


def test_numbers():
    assert [number(x, 1) for x in (-1.25, -0.04, 3, None)] == ["−1.2", "0.0", "3.0", "–"]
    assert [signed(x) for x in (1.5, -1.5, 0.001, -0.001, None)] == [
        "+1.50", "−1.50", "0.00", "0.00", "–",
    ]  # fmt: skip
    assert [verdict(*x) for x in ((0.1, 2), (-2, -0.1), (-1, 0), (None, None))] == [
        "gain", "loss", "cannot be told apart", "cannot be told apart",
    ]  # fmt: skip


def test_order_of_classes_and_stages():
    results = make_results(("a", "b"))
    results["arms"]["a"]["per_class"] = {"x": 1.0, "y": 5.0, "z": None, "w": 2.0}
    results["arms"]["b"]["per_class"] = {"x": 2.0, "y": 1.0, "z": 3.0, "w": 9.0}
    assert list(class_differences(results, "b").items()) == [("w", 7.0), ("x", 1.0), ("y", -4.0)]
    stage = {"median": 1.0}
    longer = dict.fromkeys(("clip", "up", "scores", "sam"), stage)
    times = {"a": {"clip": stage, "scores": stage}, "b": longer}
    assert stages(times) == ["clip", "up", "scores", "sam"]
    assert seconds(times, "b") == 4
