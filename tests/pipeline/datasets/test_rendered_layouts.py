"""Rendered scenes in the layouts of other data sets."""

import numpy as np
import pytest

from models.protocols import get_protocol
from pipeline.datasets import DATASETS, open_dataset, render_dataset
from pipeline.datasets.layouts import ADE20K, LAYOUTS
from pipeline.datasets.rendered_layouts import layout_scene, scene_labels
from pipeline.world.scenes import load_world

NAMES = ("context60", "coco_object", "coco_stuff", "cityscapes", "ade20k")


@pytest.mark.parametrize("name", NAMES)
def test_read_again(name, tmp_path):
    render_dataset(name, tmp_path, images=1, seed=3)
    dataset, protocol = open_dataset(name, tmp_path), get_protocol(DATASETS[name].rendered_protocol)
    assert dataset.labels == ("background", *protocol.class_names)
    assert dataset.official_size is None
    (image_id,) = dataset.ids
    assert image_id == "rendered_3_000001"
    labels = dataset.load_truth(image_id).labels
    assert labels.shape == dataset.load_image(image_id).shape[:2] and labels.shape[0] != 0
    expected = scene_labels(LAYOUTS[name], layout_scene(LAYOUTS[name], 3, 1))
    scored = (labels != 255) & (labels != 0)
    assert np.array_equal(labels[scored], expected[scored]) and scored.any()
    assert not expected[~scored].any()
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.png")}
    render_dataset(name, tmp_path, images=1, seed=3)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.png")} == before


def test_labels_are_things_and_surfaces():
    scene = layout_scene(ADE20K, 3, 1)
    labels = scene_labels(ADE20K, scene)
    for index, noun in enumerate(scene.objects, 1):
        (label,) = np.unique(labels[scene.instances == index])
        assert ADE20K.rendered[label - 1] == noun
    surface = int(scene.stuff[scene.instances == 0][0])
    name = load_world().stuff[surface][0]
    label = labels[scene.instances == 0][0]
    assert label == (ADE20K.rendered.index(name) + 1 if name in ADE20K.rendered else 0)


def test_refused(tmp_path):
    render_dataset("ade20k", tmp_path, images=1, seed=3)
    with pytest.raises(ValueError, match="holds something else: rendered_3_000001"):
        render_dataset("ade20k", tmp_path, images=1, seed=4)
    (tmp_path / "classes.txt").write_text("wall\nbuilding\n")
    with pytest.raises(ValueError, match="names other classes"):
        render_dataset("ade20k", tmp_path, images=1, seed=3)
    # Names in another order are noticed by the reader as well.
    (tmp_path / "classes.txt").write_text("building\nwall\n")
    with pytest.raises(ValueError, match="label 1 is 'building' there, expected 'wall'"):
        open_dataset("ade20k", tmp_path)
    for images, seed in ((0, 3), (1, -1)):
        with pytest.raises(ValueError, match="must"):
            render_dataset("ade20k", tmp_path / "new", images=images, seed=seed)
    with pytest.raises(ValueError, match="something else: files without"):
        render_dataset("coco_stuff", tmp_path.parent, images=1, seed=3)
