"""No option of the root programs is ignored: each matters always, or is refused."""

import argparse

import pytest

import clip_guided_segmentation_loftup as one
import compare_loftup_results as two
from models.upsamplers.registry import UPSAMPLERS
from pipeline.app.ignored import refuse_ignored
from pipeline.app.options import Parser, read_vocabulary

# What changes every run, or what is written of it.
ALWAYS = {
    *"help version verbose image vocabulary background not_words preset checkpoint".split(),
    *"model_cfg device output save_json tags points".split(),
    *"statistics map_correction".split(),
    *"attention upsampled whole_image use_pamr precision min_region_size strategy".split(),
    *"negative_points prompt_box prompt_mask min_score min_agreement iou_threshold".split(),
}
# Refused where they are read: by `given_weights`, `read_vocabulary`, `check_export_options`, and,
# of several images, by the program itself.
ELSEWHERE = {
    *(f"{name}_model" for name, row in UPSAMPLERS.items() if row.network),
    *"min_confidence threshold save_label_map overlay".split(),
    *"export export_dir polygon_tolerance yolo_images yolo_val".split(),
    *"save_heatmaps heatmap_format cutouts".split(),
}
CHOICES = {"upsampler", "use_loftup", "upsamplers"}  # contradictions are refused


@pytest.mark.parametrize("program", [one, two])
def test_every_option_is_accounted_for(program, monkeypatch):
    parsers = []
    monkeypatch.setattr(Parser, "parse_all", lambda parser, argv: parsers.append(parser))
    program.parse([])
    options = {action.dest for action in parsers[0]._actions}
    rows = {name for row in program.IGNORED for name in row.options}
    assert rows <= options and rows.isdisjoint(ALWAYS | ELSEWHERE)
    assert options <= ALWAYS | ELSEWHERE | CHOICES | rows


USELESS = [
    (one, "--loftup-share 0.5", "--loftup-share needs --use-loftup"),
    (one, "--loftup-share 0.5 --upsampler jbu", "--loftup-share needs --use-loftup"),
    (one, "--text-space restored", "--text-space needs --use-loftup"),
    (one, "--points-per-region 3", "--points-per-region needs --strategy multi"),  # the default
    (one, "--proxy-model x.pth", "--proxy-model needs a second network other than sam2"),
    (one, "--method proxy --proxy-model x.pth", "needs a second network other"),  # tiny's is sam2
    (one, "--method naclip --proxy dino_vitb8", "--proxy needs a second network: --attention"),
    (one, "--proxy-scale 8", "--proxy-scale needs a second network"),
    (one, "--method proxy --proxy-upsampler jbu", "needs a second network and --proxy-scale above"),
    (one, "--method proxy --proxy-scale 2 --proxy-upsampler-model x", "and a trained upsampler of"),
    (one, "--method proxy --corr-merge 0", "--corr-merge needs --attention corr"),
    (one, "--regions proxy", "--regions needs --attention corr or --map-correction"),
    (one, "--method corr --region-similarity 0.5", "--region-similarity needs --regions proxy"),
    (two, "--no-corr-scope", "--corr-scope needs --attention corr"),
    (one, "--overwrite", "--overwrite needs several images, or a folder"),
    (two, "--upsamplers jbu none --loftup-share 1", "--loftup-share needs loftup among --upsam"),
    (two, "--upsamplers jbu none --text-space restored", "needs loftup among --upsamplers"),
    (two, "--points-per-region 2 --strategy peak", "--points-per-region needs --strategy multi"),
]


@pytest.mark.parametrize(("program", "line", "message"), USELESS)
def test_what_would_be_ignored_is_refused(program, line, message, capsys):
    assert program.main(line.split()) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and message in err


@pytest.mark.parametrize(
    ("program", "line"),
    [
        (one, "--use-loftup --loftup-share 0.5 --text-space restored"),
        (one, "--upsampler loftup --loftup-share 0.5"),
        (one, "--strategy multi --points-per-region 2"),
        (one, "--overwrite --image photos more"),
        (two, "--loftup-share 0.5 --text-space restored"),
        (one, "--method proxy --proxy dino_vitb8 --proxy-model x.pth"),
        (one, "--preset vit-b16 --method proxy --proxy-model x.pth"),
        (two, "--method corr --proxy-scale 2 --proxy-upsampler loftup --proxy-upsampler-model x"),
        (one, "--map-correction --regions proxy --region-similarity 0.5 --proxy sam2"),
        (one, "--method corr --no-corr-scope --corr-merge 0 --corr-spatial 0 --regions sam2"),
    ],
)
def test_what_is_used_is_taken(program, line):
    refuse_ignored(program.parse(line.split()), program.IGNORED)


def test_a_confidence_that_no_class_takes(capsys):
    line = "--vocabulary cat dog --threshold cat=0.1 dog=0.2".split()
    assert len(read_vocabulary(one.parse(line))) == 2
    with pytest.raises(ValueError, match="--min-confidence would not be used: every class has"):
        read_vocabulary(one.parse([*line, "--min-confidence", "0.7"]))
    read_vocabulary(one.parse([*line, "--min-confidence", "0.7", "--not-words", "bus"]))
    read_vocabulary(one.parse([*line[:-1], "--min-confidence", "0.7"]))


def test_what_was_typed_is_known():
    args = one.parse(["--min-conf", "0.7", "--no-tags", "--background"])
    assert args.given == {"min_confidence", "tags", "background"}
    assert args.min_confidence == 0.7 and args.strategy == "pole" and args.background == []
    assert isinstance(args, argparse.Namespace) and one.parse([]).given == frozenset()
