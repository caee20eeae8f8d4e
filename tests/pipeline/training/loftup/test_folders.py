"""Folders in SA-1B's format and with label PNGs; what is wrong in them is named and left out."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.files.label_png import write_index_png
from pipeline.files.rle import encode_rle
from pipeline.training.loftup.folders import label_folder, open_source, sa1b_folder
from pipeline.training.loftup.sa1b import read_sa1b
from pipeline.training.loftup.samples import Sample, central_view, random_view
from pipeline.training.loftup.segments import SEGMENTERS

H, W = 40, 56


def box(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros((H, W), bool)
    mask[top:bottom, left:right] = True
    return mask


def annotation(mask: np.ndarray) -> dict:
    return {"segmentation": encode_rle(mask), "area": int(mask.sum()), "predicted_iou": 0.9}


def write_image(path: Path, seed: int = 0) -> None:
    values = np.random.default_rng(seed).integers(0, 255, (H, W, 3)).astype(np.uint8)
    Image.fromarray(values).save(path)


def write_sa1b(folder: Path, name: str, annotations: object) -> Path:
    write_image(folder / f"{name}.jpg")
    path = folder / f"{name}.json"
    content = {"image": {"height": H, "width": W}, "annotations": annotations}
    path.write_text(json.dumps(content))
    return path


def test_overlapping_masks_keep_all_their_pixels(tmp_path):
    small, large = box(10, 10, 20, 20), box(5, 5, 30, 30)
    path = write_sa1b(tmp_path, "sa_1", [annotation(small), annotation(large)])
    regions, members = read_sa1b(path, (H, W), lambda *_: pytest.fail("nothing is wrong here"))
    inside = [np.isin(regions, np.flatnonzero(mask)) for mask in members]
    np.testing.assert_array_equal(inside, [small, large])
    assert (regions == -1).sum() == (~large).sum()


def test_views_keep_overlapping_masks(tmp_path):
    small, large, lost = box(10, 20, 20, 30), box(5, 15, 30, 40), box(0, 0, 3, 3)
    masks = [annotation(mask) for mask in (lost, small, large)]
    found = read_sa1b(write_sa1b(tmp_path, "sa_1", masks), (H, W), lambda *_: None)
    view = central_view(Sample(np.zeros((H, W, 3), np.uint8), *found), H)  # columns 8 to 48
    inside = [np.isin(view.masks, np.flatnonzero(mask)) for mask in view.members]
    np.testing.assert_array_equal(inside, [small[:, 8:48], large[:, 8:48]])


BAD = {
    "no segmentation": {"area": 3},
    "the image has": {"segmentation": encode_rle(np.ones((W, H), bool))},
    "do not add up": {"segmentation": {"size": [H, W], "counts": [3, 4]}},
    "no pixel": annotation(np.zeros((H, W), bool)),
}


def test_bad_masks_are_named_and_the_good_one_stays(tmp_path):
    good = box(4, 4, 9, 9)
    path = write_sa1b(tmp_path, "sa_7", [*BAD.values(), annotation(good)])
    told = {}
    regions, members = read_sa1b(path, (H, W), told.__setitem__)
    np.testing.assert_array_equal(regions == 0, good)
    assert members.tolist() == [[True]]
    assert list(told) == [f"sa_7.json, mask {i}" for i in range(len(BAD))]
    for why, reason in zip(BAD, told.values(), strict=True):
        assert why in reason


def test_bad_files_are_named_once_and_left_out(tmp_path, caplog):
    for i in range(8):
        write_sa1b(tmp_path, f"sa_{i}", [annotation(box(2, 2, 30, 50))])
    (tmp_path / "sa_1.json").write_text("{")
    (tmp_path / "sa_2.json").write_text("[]")
    write_sa1b(tmp_path, "sa_3", [annotation(np.zeros((H, W), bool))])
    (tmp_path / "sa_4.jpg").write_bytes(b"no picture")
    write_image(tmp_path / "alone.jpg")
    with caplog.at_level(logging.INFO):
        source = sa1b_folder(tmp_path, held_out=1)
        rng = np.random.default_rng(0)
        samples = [source.draw(rng, 32) for _ in range(60)]
        (held_out,) = source.held_out(1, 32)
    assert all(s.image.shape == (32, 32, 3) and s.masks.shape == (32, 32) for s in samples)
    assert held_out.masks.max() == 0
    assert "1 of 9 images have no masks" in caplog.text
    bad = {"sa_1.jpg", "sa_2.jpg", "sa_3.jpg", "sa_3.json, mask 0", "sa_4.jpg"}
    assert set(source.skipped) == bad
    assert len([r for r in caplog.records if r.levelname == "WARNING"]) == 5


def test_a_folder_without_a_usable_image_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        sa1b_folder(tmp_path / "nowhere", 1)
    with pytest.raises(FileNotFoundError, match="--labels"):
        sa1b_folder(tmp_path, 1)
    for i in range(3):
        write_sa1b(tmp_path, f"sa_{i}", [])
    with pytest.raises(ValueError, match=r"3 images in a row.*no usable mask"):
        sa1b_folder(tmp_path, 1)


def test_a_folder_that_goes_bad_stops_the_run(tmp_path):
    for i in range(4):
        write_sa1b(tmp_path, f"sa_{i}", [annotation(box(0, 0, H, W))])
    source = sa1b_folder(tmp_path, 1)
    for i in range(4):
        (tmp_path / f"sa_{i}.json").write_text("")
    with pytest.raises(ValueError, match=r"50 images in a row.*no JSON"):
        source.draw(np.random.default_rng(0), 32)


def test_label_maps(tmp_path):
    images, labels = tmp_path / "images", tmp_path / "labels"
    images.mkdir(), labels.mkdir()
    values = np.where(box(0, 0, H, 28), 15, 255).astype(np.uint8)
    values[:4] = 0
    for i in range(4):
        write_image(images / f"{i}.jpg", i)
        write_index_png(labels / f"{i}.png", values)
    write_index_png(labels / "2.png", values[1:])
    write_index_png(labels / "3.png", np.full_like(values, 255))
    source = label_folder(images, labels, held_out=1)
    rng = np.random.default_rng(1)
    drawn = [source.draw(rng, 32).masks for _ in range(30)]
    seen = {tuple(np.unique(masks).tolist()) for masks in drawn}
    assert seen <= {(-1, 0, 1), (-1, 0), (0, 1), (0,), (-1,)} and len(seen) > 1
    assert source.skipped.keys() <= {"2.jpg", "3.jpg"} and source.skipped
    with pytest.raises(FileNotFoundError, match="no image in"):
        label_folder(images, tmp_path, held_out=1)


def test_held_out_images_are_never_drawn(tmp_path):
    for i in range(5):
        write_sa1b(tmp_path, f"sa_{i}", [annotation(box(0, 0, H, W))])
        Image.new("RGB", (W, H), (50 * i, 0, 0)).save(tmp_path / f"sa_{i}.jpg")
    source = sa1b_folder(tmp_path, held_out=40)

    def red(sample):
        return round(sample.image[..., 0].mean() / 50)

    (held_out,) = source.held_out(40, 32)  # a fifth at most
    rng = np.random.default_rng(0)
    assert {red(source.draw(rng, 32)) for _ in range(60)} == {0, 1, 2, 3, 4} - {red(held_out)}


def test_views_keep_image_and_masks_together():
    masks = np.arange(H * W).reshape(H, W) % 3  # columns of three kinds
    masks[:] = masks[:1] // 1
    image = np.repeat((masks * 100).astype(np.uint8)[..., None], 3, 2)
    sample = Sample(image, masks)
    view = central_view(sample, H)
    np.testing.assert_array_equal(view.image[..., 0], view.masks * 100)
    np.testing.assert_array_equal(view.masks, masks[:, 8:48])
    views = [random_view(sample, np.random.default_rng(7), 24) for _ in range(2)]
    np.testing.assert_array_equal(views[0].image, views[1].image)
    np.testing.assert_array_equal(views[0].masks, views[1].masks)


def test_labels_are_found_by_path(tmp_path):
    images, labels = tmp_path / "images", tmp_path / "labels"
    for folder in (images / "a", images / "b", labels / "a", labels / "b"):
        folder.mkdir(parents=True)
    values = {"a": box(0, 0, 20, W), "b": box(0, 0, H, 28)}
    for place in ("a/1.x", "a/2", "b/1.x", "b/2"):
        write_image(images / f"{place}.jpg")
        write_index_png(labels / f"{place}.png", values[place[0]].astype(np.uint8))
    source = label_folder(images, labels, held_out=1)
    assert len(source._held_out + source._training) == 4
    for path in source._training:
        np.testing.assert_array_equal(source._load(path).masks, values[path.parent.name])

    flat = tmp_path / "flat"  # nobody knows whose they are
    flat.mkdir()
    write_index_png(flat / "2.png", values["a"].astype(np.uint8))
    with pytest.raises(FileNotFoundError, match=r"a/0001\.jpg needs .*flat/a/0001\.png"):
        label_folder(images, flat, held_out=1)

    write_image(images / "a" / "2.png")
    with pytest.raises(ValueError, match=r"a/2\.png would be of .*a/2\.jpg and of .*a/2\.png"):
        label_folder(images, labels, held_out=1)


def test_two_images_of_one_json_are_refused(tmp_path):
    write_sa1b(tmp_path, "sa_1", [])
    write_image(tmp_path / "sa_1.png")
    with pytest.raises(ValueError, match=r"sa_1\.json would be of .*sa_1\.jpg and of .*sa_1\.png"):
        sa1b_folder(tmp_path, 1)


def test_a_view_is_cut_no_smaller_than_it_becomes():
    image = np.repeat(np.arange(W, dtype=np.uint8)[None].repeat(H, 0)[..., None], 3, 2)
    sample = Sample(image, np.zeros((H, W), np.int64))
    for seed in range(5):
        view = random_view(sample, np.random.default_rng(seed), H)
        steps = np.diff(view.image[0, :, 0].astype(int))
        assert set(np.abs(steps)) == {1}  # neither enlarged nor shrunk


def test_small_images_are_left_out(tmp_path):
    for i in range(3):
        write_sa1b(tmp_path, f"sa_{i}", [annotation(box(0, 0, H, W))])
    assert sa1b_folder(tmp_path, 1, min_side=H).skipped == {}
    with pytest.raises(ValueError, match=f"shorter side of {H} pixels, below --min-side {H + 1}"):
        sa1b_folder(tmp_path, 1, min_side=H + 1)


@pytest.mark.parametrize("method", SEGMENTERS)
def test_segmented_photographs_need_no_masks(tmp_path, method):
    parts = box(0, 0, H, 30)
    for i in range(3):
        values = np.where(parts[..., None], [220, 30, 10 * i], [20, 90, 200])
        noise = np.random.default_rng(i).integers(0, 9, values.shape)
        Image.fromarray((values + noise).astype(np.uint8)).save(tmp_path / f"{i}.png")
    source = open_source(str(tmp_path), None, 1, segmenter=method)
    assert source.name == f"{tmp_path} by {method}, 3 images, 1 held out"
    sample = source._load(source._training[0])
    for region in range(sample.masks.max() + 1):  # none lies on both sides
        share = parts[sample.masks == region].mean()
        assert min(share, 1 - share) < 0.1
    (view,) = source.held_out(1, 32)
    assert view.masks.min() == 0 and view.masks.max() >= 1
    with pytest.raises(FileNotFoundError, match="no image in"):
        (tmp_path / "none").mkdir()
        open_source(str(tmp_path / "none"), None, 1, segmenter=method)
