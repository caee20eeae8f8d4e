"""Rendered data sets in VOC's layout."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets import rendered_voc as voc_world
from pipeline.datasets.rendered_voc import render_voc, voc_scene
from pipeline.datasets.voc import LABELS, VocDataset


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("voc") / "new" / "rendered"
    render_voc(root, images=3, seed=7)
    return root


def test_the_reader_reads_it(rendered):
    data = VocDataset.open(rendered)
    assert data.ids == ("rendered_7_000001", "rendered_7_000002", "rendered_7_000003")
    assert data.has_objects and data.official_size is None
    for index, name in enumerate(data.ids, 1):
        scene, truth = voc_scene(7, index), data.load_truth(name)
        assert np.array_equal(truth.objects, scene.instances)
        for number, noun in enumerate(scene.objects, 1):
            assert {LABELS[i] for i in truth.labels[truth.objects == number]} == {noun}
        assert (truth.labels[truth.objects == 0] == 0).all()
        image = data.load_image(name)
        assert image.shape == scene.image.shape
        assert np.abs(image.astype(int) - scene.image).mean() < 4  # JPEG


def test_files_are_of_vocs_kinds(rendered):
    assert len(contents(rendered)) == 10
    for folder in ("SegmentationClass", "SegmentationObject"):
        with Image.open(rendered / folder / "rendered_7_000002.png") as image:
            assert image.mode == "P" and image.getpalette()[3:6] == [128, 0, 0]
    with Image.open(rendered / "JPEGImages" / "rendered_7_000002.jpg") as image:
        assert image.format == "JPEG"
        assert {layer[1:3] for layer in image.layer} == {(1, 1)}  # colour is not halved


def test_sizes_and_objects_spread_as_vocs():
    scenes = [voc_scene(1, index) for index in range(40)]
    sizes = {scene.image.shape[:2] for scene in scenes}
    assert {max(size) for size in sizes} == {500}
    assert all(300 <= min(size) <= 400 for size in sizes) and len({min(s) for s in sizes}) > 10
    assert 15 <= sum(scene.image.shape[1] == 500 for scene in scenes) <= 33
    areas = np.concatenate([np.bincount(s.instances.ravel())[1:] for s in scenes])
    counts = np.histogram(areas, [0, 100, 32**2, 96**2, 500 * 400])[0]
    assert (counts >= 5).all()
    assert all(1 <= len(scene.objects) <= 6 for scene in scenes)


def test_an_image_depends_on_seed_and_number_alone(rendered, tmp_path):
    render_voc(tmp_path / "fewer", images=2, seed=7)
    render_voc(tmp_path / "other", images=1, seed=8)
    whole, fewer, other = (contents(p) for p in (rendered, tmp_path / "fewer", tmp_path / "other"))
    images = [name for name in fewer if "ImageSets" not in name]
    assert len(images) == 6 and all(fewer[name] == whole[name] for name in images)
    assert other["JPEGImages/rendered_8_000001.jpg"] != whole["JPEGImages/rendered_7_000001.jpg"]


def test_goes_on_after_an_interruption(rendered, tmp_path, monkeypatch):
    calls = []

    def interrupted(seed: int, index: int, **options):
        if index == 3:
            raise KeyboardInterrupt
        return voc_scene(seed, index, **options)

    def counted(seed: int, index: int, **options):
        calls.append(index)
        return voc_scene(seed, index, **options)

    monkeypatch.setattr(voc_world, "voc_scene", interrupted)
    with pytest.raises(KeyboardInterrupt):
        render_voc(tmp_path, images=3, seed=7)
    assert len(contents(tmp_path)) == 6 and not (tmp_path / "ImageSets").exists()
    (tmp_path / "SegmentationObject" / "rendered_7_000001.png").unlink()
    (tmp_path / "JPEGImages" / ".left.tmp").touch()  # of a killed process
    monkeypatch.setattr(voc_world, "voc_scene", counted)
    render_voc(tmp_path, images=3, seed=7)
    assert calls == [1, 3]
    (tmp_path / "JPEGImages" / ".left.tmp").unlink()
    assert contents(tmp_path) == contents(rendered)
    render_voc(tmp_path, images=3, seed=7)
    assert calls == [1, 3]


@pytest.mark.parametrize("options", [{"images": 2}, {"images": 4}, {"seed": 8}])
def test_another_sets_folder_is_refused(rendered, options):
    before = contents(rendered)
    with pytest.raises(ValueError, match=r"val\.txt' lists other images"):
        render_voc(rendered, **({"images": 3, "seed": 7} | options))
    assert contents(rendered) == before


@pytest.mark.parametrize(
    "name", ["JPEGImages/2007_000033.jpg", "notes.txt", "ImageSets/Segmentation/train.txt"]
)
def test_a_folder_with_something_else_is_refused(tmp_path, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match=name):
        render_voc(tmp_path, images=1)
    assert list(contents(tmp_path)) == [name]


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match="at least 1, got 0"):
        render_voc(tmp_path / "new", images=0)
    with pytest.raises(ValueError, match="got -1"):
        render_voc(tmp_path / "new", seed=-1)
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="not a folder"):
        render_voc(tmp_path / "file")


def test_the_varied_set_is_another_one(tmp_path):
    render_voc(tmp_path, images=1, seed=7, varied=True)
    data = VocDataset.open(tmp_path)
    assert data.ids == ("varied_7_000001",)
    scene = voc_scene(7, 1, varied=True)
    assert np.array_equal(data.load_truth(data.ids[0]).objects, scene.instances)
    assert not np.array_equal(scene.image, voc_scene(7, 1).image)
    with pytest.raises(ValueError, match="lists other images"):
        render_voc(tmp_path, images=1, seed=7)
