"""Published figures beside measured ones."""

import dataclasses
import json

import numpy as np
import pytest

from models.protocols import get_protocol
from pipeline.datasets.base import GroundTruth
from pipeline.evaluation.arm_scores import LARGE, ArmScores
from pipeline.evaluation.published import published, warning
from pipeline.evaluation.report.report import markdown
from pipeline.evaluation.scores import score_image

from .report.made_up import make_results

IMAGES = {"listed": 1449, "asked": 1449, "scored": 1449, "official": 1449, "failed": []}


def settings(name: str, **changes) -> dict:
    """As results.json holds them."""
    protocol = json.loads(json.dumps(dataclasses.asdict(get_protocol(name))))
    return {"preset": "vit-b16", "protocol": protocol} | changes


@pytest.mark.parametrize(
    ("miou", "off"), [(81.0, False), (82.5, False), (80.5, True), (82.6, True)]
)
def test_off_by_more_than_a_point(miou, off):
    (entry,) = published(settings("sclip-voc20"), IMAGES, {"bilinear": {"mIoU": miou}})
    assert entry == {
        "arm": "bilinear", "published": 81.54, "measured": miou, "differs": [], "off": off,
        "source": "the README of SCLIP's repository",
    }  # fmt: skip


def test_other_settings_are_no_reason_to_warn():
    arms = {"bilinear": {"mIoU": 20.0}}
    protocol = settings("sclip-voc20")["protocol"] | {"logit_scale": 50, "short_side": 448}
    for changed, images, told in (
        ({"preset": "tiny"}, {}, ["models: tiny, not vit-b16"]),
        ({"protocol": protocol}, {}, ["protocol: logit_scale", "protocol: short_side"]),
        ({}, {"scored": 50}, ["images: 50 of 1449"]),
        ({}, {"official": None}, ["images: not the data set's own"]),
    ):
        (entry,) = published(settings("sclip-voc20") | changed, IMAGES | images, arms)
        assert entry["differs"] == told and not entry["off"]
    # What this project is known to do otherwise, too.
    (entry,) = published(settings("corrclip-voc21"), IMAGES, {"bilinear+corr": {"mIoU": 20.0}})
    assert not entry["off"] and "MetaCLIP" in entry["differs"][0]


def test_another_arm_and_other_protocols():
    (entry,) = published(settings("sclip-voc20"), IMAGES, {"loftup": {"mIoU": 20.0}})
    assert entry["measured"] is None and not entry["off"] and entry["published"] == 81.54
    assert published(settings("plain-voc20"), IMAGES, {"bilinear": {"mIoU": 20.0}}) == []


def test_in_the_report():
    results = make_results()
    assert "## Published" not in markdown(results, {})
    results["published"] = published(settings("sclip-voc20"), IMAGES, results["arms"])
    text = markdown(results, {})
    assert warning(results["published"][0]) in text
    row = "| `bilinear` | 81.54 | 45.00 | −36.54 | the README of SCLIP's repository | nothing that"
    assert row in text
    results["published"][0] |= {"off": False, "differs": ["models: tiny, not vit-b16"]}
    text = markdown(results, {})
    assert "look for what differs" not in text and "models: tiny, not vit-b16 |" in text


def test_a_large_confusion_matrix_is_no_part_of_a_summary():
    for count, kept in ((LARGE, True), (LARGE + 1, False)):
        scores = ArmScores([str(n) for n in range(count)], ignore=65535)
        truth = np.array([[0, 3, 3], [1, 2, count - 1]], np.uint16)
        found = score_image(truth, truth, None, count, 65535)
        scores.add("a", found, {"seconds": {}}, GroundTruth(truth, None))
        summary = scores.summary()
        assert summary["mIoU"] == 100 and scores.confusion.trace() == 6
        assert (np.trace(summary["confusion"]) == 6) if kept else summary["confusion"] is None
