"""The program that renders a data set in VOC's layout."""

import pytest

from pipeline.datasets.voc import VocDataset
from scripts import make_sample_voc


def test_renders_a_data_set(tmp_path, capsys):
    folder = tmp_path / "voc"
    assert make_sample_voc.main(["--output", str(folder), "--images", "2", "--seed", "3"]) == 0
    assert capsys.readouterr().out == f"{folder}: 2 rendered images, split val\n"
    assert VocDataset.open(folder).ids == ("rendered_3_000001", "rendered_3_000002")


def test_bad_input_is_one_line(tmp_path, capsys):
    assert make_sample_voc.main(["--output", str(tmp_path), "--images", "0"]) == 2
    assert capsys.readouterr().err == "error: images must be at least 1, got 0\n"
    (tmp_path / "mine.txt").touch()
    assert make_sample_voc.main(["--output", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "mine.txt" in error and error.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["--output", "x", "--images", "many"]])
def test_bad_options_are_one_line(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        make_sample_voc.main(arguments)
    error = capsys.readouterr().err
    assert caught.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1
