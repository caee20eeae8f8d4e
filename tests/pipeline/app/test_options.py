"""The options that the programs share."""

import argparse
import os
from pathlib import Path

import pytest

from models.presets import PRESETS
from models.protocols import get_protocol
from pipeline.app.options import (
    SCENE,
    Parser,
    add_config_options,
    add_model_options,
    add_upsampler_options,
    add_weights_options,
    check_outputs,
    choose_preset,
    choose_upsampler,
    config_from_args,
    read_vocabulary,
)
from pipeline.config import PipelineConfig


def parse(*argv: str) -> argparse.Namespace:
    parser = Parser("a program")
    add_model_options(parser)
    add_weights_options(parser)
    add_config_options(parser, PipelineConfig)
    return parser.parse_args(list(argv))


def test_without_options_the_settings_are_the_defaults():
    assert config_from_args(parse()) == PipelineConfig()


def test_every_setting_has_its_option():
    config = config_from_args(
        parse(
            *"--min-confidence 0.25 --min-region-size 7 --iou-threshold 0.5".split(),
            *"--strategy multi --points-per-region 4 --negative-points 2".split(),
            *"--prompt-box --prompt-mask --use-pamr".split(),
            *"--attention maskclip --text-space channel_norm --whole-image".split(),
            *"--upsampled scores".split(),
            *"--min-score 0.1 --min-agreement 0.2".split(),
        )
    )
    assert config == PipelineConfig(
        min_confidence=0.25, min_region_size=7, iou_threshold=0.5, strategy="multi",
        points_per_region=4, negative_points=2, prompt_box=True, prompt_mask=True,
        attention="maskclip", text_space="channel_norm", whole_image=True, use_pamr=True,
        upsampled="scores",
        min_score=0.1, min_agreement=0.2,
    )  # fmt: skip


@pytest.mark.parametrize(
    "argv",
    [
        ["--vocabulary"],
        ["--not-words"],
        ["--threshold"],
        ["--min-confidence", "high"],
        ["--min-region-size", "1.5"],
        ["--no-such-option"],
        ["person"],
        ["--image"],
        ["two\nlines"],
    ],
)
def test_bad_options_are_one_line(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(*argv)
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith("error: ") and err.count("\n") == 1


def test_the_bundled_scene_is_segmented_by_the_shipped_models(monkeypatch):
    assert SCENE.path.is_file()
    assert choose_preset(parse()) == "tiny"
    monkeypatch.chdir(SCENE.path.parent)
    for path in (Path(SCENE.path.name), SCENE.path.parent / ".." / "examples" / SCENE.path.name):
        assert choose_preset(parse("--image", str(path))) == "tiny"
    assert choose_preset(parse("--image", "photo.jpg")) == "vit-b16"
    assert choose_preset(parse("--image", "photo.jpg", "--preset", "tiny")) == "tiny"
    assert choose_preset(parse("--preset", "vit-b16")) == "vit-b16"


def test_vocabulary(tmp_path):
    background = get_protocol(PRESETS["tiny"].protocol).background
    vocabulary = read_vocabulary(parse())
    assert vocabulary.class_names == SCENE.words and vocabulary.background == background
    (tmp_path / "words.txt").write_text("# furniture\nsofa,couch\n\nchair\n")
    vocabulary = read_vocabulary(parse("--vocabulary", "cat", f"@{tmp_path}/words.txt"))
    assert vocabulary.words == (("cat",), ("sofa", "couch"), ("chair",))
    given = read_vocabulary(parse("--vocabulary", "cat", "--background", "sky", "deep sea"))
    assert given.background == ("sky", "deep sea")
    assert read_vocabulary(parse("--vocabulary", "cat", "--background")).background == ()
    with pytest.raises(ValueError, match="unknown preset 'huge'; valid: vit-b16, tiny"):
        read_vocabulary(parse("--preset", "huge"))


def test_not_words_and_thresholds():
    argv = ["--vocabulary", "cat", "dog,hound", "--not-words", "fox,vixen", "wolf"]
    vocabulary = read_vocabulary(parse(*argv, "--threshold", "dog=0.5", "cat=.3"))
    assert vocabulary.not_words == (("fox", "vixen"), ("wolf",))
    assert vocabulary.thresholds == (0.3, 0.5)
    assert not read_vocabulary(parse()).not_words and not read_vocabulary(parse()).thresholds
    equals = parse("--vocabulary", "a=b", "--threshold", "a=b=1")  # the last "=" counts
    assert read_vocabulary(equals).thresholds == (1,)
    with pytest.raises(ValueError, match="class 'dog' has two thresholds"):
        read_vocabulary(parse(*argv, "--threshold", "dog=0.5", "dog=0.6"))


def test_outputs_that_can_be_written(tmp_path):
    image = tmp_path / "image.png"
    outputs = {"--a": tmp_path / "new" / "folder" / "a.png", "--b": tmp_path / "b", "--c": None}
    check_outputs(outputs, image)
    assert not list(tmp_path.iterdir())


def test_outputs_that_cannot(tmp_path, monkeypatch):
    image, file = tmp_path / "image.png", tmp_path / "file"
    file.touch()
    for path, words in (
        (tmp_path, "is a folder"),
        (file / "a.png", f"cannot be written: {file} is not a folder"),
        (file / "deeper" / "a.png", f"cannot be written: {file} is not a folder"),
        (image, "is also --image"),
    ):
        with pytest.raises(ValueError, match=f"^--a {path} {words}"):
            check_outputs({"--a": path}, image)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"^--b same\.png is also --a; give another name"):
        check_outputs({"--a": tmp_path / "same.png", "--b": Path("same.png")}, image)
    (tmp_path / "loop.png").symlink_to("loop.png")
    check_outputs({"--a": Path("loop.png")}, Path("loop2.png"))  # found when it is written
    with pytest.raises(ValueError, match=r"is also --image"):
        check_outputs({"--a": Path("loop.png")}, Path("loop.png"))
    check_outputs({"--a": Path("/dev/null")}, image)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(ValueError, match=r"file cannot be written: .* is write-protected$"):
        check_outputs({"--a": file}, image)
    with pytest.raises(ValueError, match=f"a.png cannot be written: no permission for {tmp_path}"):
        check_outputs({"--a": Path("a.png")}, image)


def choose(*argv: str) -> str:
    parser = Parser("a program")
    add_model_options(parser)
    add_upsampler_options(parser)
    return choose_upsampler(parser.parse_args(list(argv)))


def test_the_upsampler_and_its_short_form():
    assert choose() == "bilinear" == PipelineConfig().upsampler
    assert choose("--use-loftup") == choose("--upsampler", "loftup") == "loftup"
    assert choose("--use-loftup", "--upsampler", "loftup", "--loftup-model", "a.bin") == "loftup"
    assert choose("--upsampler", "anyup", "--anyup-model", "a.pth") == "anyup"
    with pytest.raises(ValueError, match="contradicts --upsampler jbu: give one of them"):
        choose("--use-loftup", "--upsampler", "jbu")
