"""To add something is a file of its own and a row: everything else derives from the row."""

import dataclasses
import io

import numpy as np
import pytest
import torch
from PIL import Image

from models import protocols
from models.dense import DENSE_FIELDS
from models.dense_methods import METHODS, DenseMethod
from models.protocols import Protocol
from models.upsamplers import load_upsampler
from models.upsamplers.registry import UPSAMPLERS, UpsamplerRow
from pipeline.app.compare import compare
from pipeline.app.options import Parser, add_config_options, add_weights_options, given_weights
from pipeline.config import PipelineConfig
from pipeline.datasets import DATASETS, DatasetRow, open_dataset
from pipeline.evaluation import arms
from pipeline.evaluation.arms import Part, meanings, parse_arm, parse_arms
from pipeline.evaluation.predict import predict, read_prediction
from pipeline.evaluation.ranks import Ranks
from pipeline.evaluation.runner import ArmRunner
from pipeline.evaluation.score import results, score, scoring_protocol
from pipeline.files.label_png import write_index_png
from pipeline.segmenter import Segmenter
from tests.pipeline.datasets.voc_folders import coloured_noise

from .plug_ins import NAMES, Sharpener

SIZE = (60, 101)
WORDS = ["cat", "dog", "tree"]
USERS = {"proxy_upsampler": "+corr+proxy_scale=2", "region_similarity": "+corr+regions=proxy"}
ALONE = Ranks(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return coloured_noise(1, SIZE)


@pytest.fixture
def sharpen(tmp_path, monkeypatch) -> str:
    """A trained upsampler's row; the path of its weights."""
    row = UpsamplerRow(
        meaning="features upsampled bilinearly and sharpened",
        upsampled=("features",),
        build="tests.plug_ins:SharpenUpsampler",
        network="tests.plug_ins:load_sharpener",
        default=str(tmp_path / "sharpen.pt"),
        weights_help="weights file",
    )
    torch.save(Sharpener().state_dict(), row.default)
    monkeypatch.setitem(UPSAMPLERS, "sharpen", row)
    # The bases of arms are made of the table when it is imported.
    monkeypatch.setitem(arms.BASES, "sharpen", arms.of_upsampler("sharpen", row.meaning))
    return row.default


def test_a_trained_upsampler(sharpen, random_preset, image, tmp_path):
    parser = Parser("a program")
    add_weights_options(parser)
    args = parser.parse_args(["--sharpen-model", sharpen])
    assert given_weights(args, ("sharpen",))["sharpen"] == sharpen
    assert meanings()["sharpen"] == "features upsampled bilinearly and sharpened"
    assert load_upsampler("sharpen").upsample(
        torch.randn(1, 4, 3, 5), torch.rand(1, 3, 9, 20), (9, 20)
    ).shape == (1, 4, 9, 20)
    segmenter = Segmenter.from_preset(random_preset, device="cpu", upsampler="sharpen")
    found = segmenter.segment(image, WORDS)
    assert found.settings["upsampler"] == "sharpen"
    assert found.settings["weights"].keys() == {"clip", "sharpen", "sam2"}
    assert compare(segmenter, image, WORDS, upsamplers=("bilinear", "sharpen")).arms
    assert parse_arm("sharpen+sam2").changes["upsampler"] == "sharpen"
    # Other weights are another fingerprint.
    torch.save({"gain": torch.tensor(9.0)}, tmp_path / "other.pt")
    other = Segmenter.from_preset(
        random_preset, upsampler="sharpen", weights={"sharpen": tmp_path / "other.pt"}, device="cpu"
    )
    words = other.vocabulary(WORDS)
    prints = [s.made_with(words)["weights"]["sharpen"] for s in (segmenter, other)]
    assert prints[0] != prints[1]


def test_a_dense_method_with_a_second_network(random_preset, image, monkeypatch):
    row = DenseMethod(
        meaning="patches mixed with those a second network finds alike",
        block="tests.plug_ins:by_proxy",
        proxy=True,
    )
    monkeypatch.setitem(METHODS, "by_proxy", row)
    monkeypatch.setitem(arms.MODIFIERS, "by_proxy", Part({"attention": "by_proxy"}, row.meaning))
    segmenter = Segmenter.from_preset(random_preset, device="cpu")
    changed = segmenter.with_config(attention="by_proxy", proxy="tiny")
    words = segmenter.vocabulary(WORDS)
    plain, other = (s.dense.dense(image, words).probs for s in (segmenter, changed))
    assert plain.shape == other.shape and not np.array_equal(plain, other)
    assert changed.made_with(words)["weights"].keys() == {"clip", "sam2", "tiny"}
    assert parse_arm("bilinear+by_proxy").changes["attention"] == "by_proxy"


def test_a_data_set_of_300_classes(random_preset, tmp_path, monkeypatch):
    row = DatasetRow(
        meaning="300 things",
        reader="tests.plug_ins:open_things",
        split="all",
        protocol="things",
    )
    monkeypatch.setitem(DATASETS, "things", row)
    classes = (NAMES[0], NAMES[149], NAMES[299])
    protocol = Protocol(
        name="things", logit_scale=400, short_side=48, window=48, stride=24,
        class_names=classes, words=tuple((name,) for name in classes), background=("wall",),
    )  # fmt: skip
    monkeypatch.setitem(protocols.PROTOCOLS, "things", protocol)
    for number, size in enumerate(((60, 101), (48, 30))):
        Image.fromarray(coloured_noise(number, size)).save(tmp_path / f"{number}.png")
        labels = np.zeros(size, np.uint16)
        labels[:20, :25], labels[20:, :9], labels[:, 27:] = 300, 150, 65535
        (tmp_path / "labels").mkdir(exist_ok=True)
        write_index_png(tmp_path / "labels" / f"{number}.png", labels)
    dataset = open_dataset("things", tmp_path)
    segmenter = Segmenter.from_preset(random_preset, device="cpu")
    runner = ArmRunner(
        segmenter.dense,
        scoring_protocol("things", dataset.labels),
        dataset.labels,
        ignore=dataset.ignore,
    )
    folder, names = tmp_path / "predictions", ["bilinear", "bilinear+sam2", "oracle-points"]
    assert predict(dataset, runner, parse_arms(names), folder, ALONE) == []
    labels, _ = read_prediction(folder, "bilinear", "0")
    assert labels.shape == (60, 101) and set(np.unique(labels)) <= {0, 1, 150, 300}
    assert labels.max() == 300
    found = results(dataset, *score(dataset, names, folder), resamples=20)
    assert len(found["arms"]["bilinear"]["per_class"]) == 301
    confusion = np.array(found["arms"]["bilinear"]["confusion"])
    assert confusion.sum() == sum(h * min(w, 27) for h, w in ((60, 101), (48, 30)))
    assert found["arms"]["oracle-points"]["prompts"]["points_on_class"] == 100


def test_a_setting_is_a_field():
    """Its option, its part of an arm's name, its check and its record derive from the field."""
    parser = Parser("a program")
    add_config_options(parser, PipelineConfig)
    text = io.StringIO()
    parser.print_help(text)
    written = PipelineConfig().to_dict()
    for field in dataclasses.fields(PipelineConfig):
        assert field.name in written
        if field.metadata.get("help"):
            assert f"--{field.name.replace('_', '-')}" in text.getvalue()
        if field.name in ("upsampler", "protocol"):
            continue
        value = written[field.name]
        if value is None:
            text_typed = "float" not in str(field.type)
            value = (*field.metadata["choices"], "sam2" if text_typed else 0.5)[0]
        typed = {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value
        user = ""  # what makes use of the setting, where the default method does not
        if field.name in PipelineConfig().unused():
            with pytest.raises(ValueError, match=f"does not use {field.name}"):
                parse_arm(f"loftup+sam2+{field.name}={typed}")
            user = USERS.get(field.name, "+corr")
        loftup = parse_arm(f"loftup+sam2{user}+{field.name}={typed}")
        assert loftup.changes[field.name] == value
        assert (field.name in loftup.dense_changes) == (field.name in DENSE_FIELDS)
