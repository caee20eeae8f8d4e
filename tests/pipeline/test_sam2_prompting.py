"""Prompts on an image → masks. SAM 2 is a fake with hand-made answers, or small and random."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from models.presets import Preset
from pipeline import sam2_prompting as guided
from pipeline.config import PipelineConfig
from pipeline.regions import Region
from pipeline.sam2_prompting import masks_from_prompts, segment_with_guided_prompts

from .fakes import FakeSam, grid

HEIGHT, WIDTH = 32, 64  # a cell of SAM's grid is 2 rows of 4 pixels
PART, OBJECT, WHOLE = grid(4, 4, 6, 6), grid(4, 4, 12, 8), grid(0, 0, 16, 16)
OBJECT_REGION = Region(8, 16, np.ones((16, 16), bool))  # the same in pixels
EMPTY = np.zeros((16, 16), bool)


def prompt(x: int = 20, y: int = 10, **more) -> dict:
    return {"point": (x, y), "class_idx": 1, "class_name": "cat", **more}


def answered(*candidates: np.ndarray, iou: tuple[float, ...] = (0.9, 0.8, 0.95)) -> FakeSam:
    sam = FakeSam({None: (candidates, iou)})
    sam.set_image(np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    return sam


def run(sam: FakeSam, prompts: list[dict], **settings) -> list[dict]:
    return list(masks_from_prompts(sam, prompts, (HEIGHT, WIDTH), PipelineConfig(**settings)))


@pytest.mark.parametrize(
    ("rule", "score", "agreement", "region"),
    [
        ("product", 0.8, 1, OBJECT_REGION),
        ("agreement", 0.8, 1, OBJECT_REGION),
        ("iou", 0.95, 256 / 2048, Region(0, 0, np.ones((HEIGHT, WIDTH), bool))),
    ],
)
def test_which_candidate(rule, score, agreement, region):
    sam = answered(PART, OBJECT, WHOLE)
    (found,) = run(sam, [prompt(component=OBJECT_REGION)], mask_choice=rule, min_agreement=0)
    assert found["source"] == "sam2"
    assert found["score"] == pytest.approx(score) and found["agreement"] == pytest.approx(agreement)
    assert found["mask_region"].box == region.box
    assert np.array_equal(found["mask_region"].mask, region.mask)
    assert found["class_name"] == "cat" and found["point"] == (20, 10)


@pytest.mark.parametrize(
    ("settings", "source"),
    [
        ({"min_score": 0.8, "min_agreement": 1}, "sam2"),  # the limits themselves are enough
        ({"min_score": 0.81}, "region"),
        ({"min_agreement": 0.5}, "sam2"),
    ],
)
def test_fall_back_by_score(settings, source):
    sam = answered(PART, OBJECT, WHOLE, iou=(0.9, 0.8, 0.95))
    (found,) = run(sam, [prompt(component=OBJECT_REGION)], **settings)
    assert found["source"] == source
    assert (found["mask_region"] is OBJECT_REGION) == (source == "region")


def test_fall_back_by_agreement():
    sam = answered(PART, PART, PART)  # 2×2 of 8×4 cells
    component = prompt(component=OBJECT_REGION)
    (found,) = run(sam, [component], min_agreement=0.126)
    assert found["agreement"] == pytest.approx(0.125) and found["score"] == pytest.approx(0.95)
    assert found["source"] == "region" and found["mask_region"] is OBJECT_REGION
    (found,) = run(sam, [component], min_agreement=0.124)
    assert found["source"] == "sam2" and found["mask_region"].area == 32


def test_a_prompt_without_component_takes_the_highest_predicted_iou():
    (found,) = run(answered(PART, OBJECT, WHOLE), [prompt()], min_score=1, min_agreement=1)
    assert found["source"] == "sam2"
    assert found["mask_region"].area == HEIGHT * WIDTH
    assert found["score"] == pytest.approx(0.95) and found["agreement"] == 0


def test_an_empty_answer():
    sam = answered(EMPTY, EMPTY, EMPTY)
    with_region, without = run(
        sam, [prompt(component=OBJECT_REGION), prompt()], min_score=0, min_agreement=0
    )
    assert with_region["source"] == "region" and with_region["mask_region"] is OBJECT_REGION
    assert without["source"] == "sam2" and without["mask_region"].area == 0


def test_boxes_and_masks_go_to_the_prompts_that_have_a_region():
    sam = answered(PART, OBJECT, WHOLE)
    prompts = [prompt(), prompt(21, 11, component=OBJECT_REGION), prompt(22, 12)]
    found = run(sam, prompts, prompt_box=True, prompt_mask=True)
    assert [f["point"] for f in found] == [(20, 10), (21, 11), (22, 12)]
    assert [f["mask_region"].area for f in found] == [HEIGHT * WIDTH, 256, HEIGHT * WIDTH]
    guided_by_region, by_points = sam.calls
    # A box ends where the last of SAM's pixels in it, 1 by ½ of the image's, begins.
    assert guided_by_region["boxes"].tolist() == [[16, 8, 32 - WIDTH / 64, 24 - HEIGHT / 64]]
    logits = guided_by_region["mask_logits"].numpy()
    assert logits.shape == (1, 1, 16, 16)
    assert np.array_equal(logits[0, 0] > 0, OBJECT) and set(np.unique(logits)) == {-8, 8}
    assert by_points["boxes"] is None and by_points["mask_logits"] is None
    assert len(by_points["points"]) == 2

    sam.calls.clear()
    run(sam, prompts, prompt_mask=False)
    assert len(sam.calls) == 1 and sam.calls[0]["boxes"] is None


def test_points_reach_sam_in_the_middle_of_their_pixels():
    sam = answered(PART, OBJECT, WHOLE)
    many = prompt(points=[(20, 10), (3, 4)], negative_points=[(50, 30)])
    run(sam, [prompt(), many])
    call = sam.calls[0]
    assert call["labels"].tolist() == [[1, -1, -1], [1, 1, 0]]
    side = 64  # of SAM's square: it scales by this over the image's, and adds a half
    seen = call["points"] * (side / WIDTH, side / HEIGHT) + 0.5
    middles = np.array([(20.5, 10.5), (3.5, 4.5), (50.5, 30.5)]) * (side / WIDTH, side / HEIGHT)
    assert np.abs(seen[1] - middles).max() < 1e-5 and np.abs(seen[0, 0] - middles[0]).max() < 1e-5


def test_many_prompts_stay_in_order():
    answers = {(x, y): ((grid(y, x, y + 1, x + 1),) * 3, (0.9, 0.8, 0.7))
               for y in range(16) for x in range(16)}  # fmt: skip
    sam = FakeSam(answers)
    sam.set_image(np.zeros((16, 32, 3), np.uint8))  # cells of 1×2 pixels
    prompts = [prompt(x, y) for y in range(16) for x in range(9)]
    found = list(masks_from_prompts(sam, prompts, (16, 32), PipelineConfig()))
    assert len(sam.calls) > 1
    assert [f["mask_region"].box for f in found] == [
        (2 * x, y, 2 * x + 2, y + 1) for y in range(16) for x in range(9)
    ]


@pytest.mark.parametrize(
    "bad",
    [
        prompt(WIDTH, 0),
        prompt(0, HEIGHT),
        prompt(-1, 5),
        prompt(float("nan"), 5),
        prompt(points=[(20, 10), (5, 40)]),
        prompt(negative_points=[(5, 40)]),
    ],
)
def test_points_outside_the_image(bad):
    with pytest.raises(ValueError, match=r"prompt 1: point .* which is 64 wide and 32 high"):
        run(answered(PART, OBJECT, WHOLE), [prompt(), bad])


def test_a_prompt_without_point():
    with pytest.raises(ValueError, match="prompt 0 has no 'point'"):
        run(answered(PART, OBJECT, WHOLE), [{"class_idx": 0}])


@pytest.fixture
def preset(random_preset: Preset, monkeypatch) -> Preset:
    monkeypatch.setattr(guided, "get_preset", {"vit-b16": random_preset}.__getitem__)
    return random_preset


def test_with_a_model(preset, tmp_path):
    from clip_guided_segmentation_loftup import segment_with_guided_prompts as users

    assert users is segment_with_guided_prompts
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    prompts = [
        prompt(),
        prompt(3, 30, class_idx=0, confidence=0.9, region_size=256, negative_points=[(60, 2)],
               points=[(3, 30), (9, 20)], box=OBJECT_REGION.box, component=OBJECT_REGION,
               region=OBJECT_REGION, note="kept"),
    ]  # fmt: skip
    results = users(image, prompts, device="cpu")
    assert len(results) == 2
    for given, found in zip(prompts, results, strict=True):
        assert given.items() <= found.items()
        mask, (x, y, width, height) = found["mask"], found["bbox"]
        assert mask.shape == (HEIGHT, WIDTH) and mask.dtype == bool
        assert 0 <= found["score"] <= 1 and isinstance(found["score"], float)
        inside = mask[y : y + height, x : x + width]
        assert inside.sum() == mask.sum()
        if inside.size:  # the box is tight
            assert inside[[0, -1]].any(1).all() and inside[:, [0, -1]].any(0).all()
        assert found["source"] in ("sam2", "region") and 0 <= found["agreement"] <= 1
    assert results[0]["source"] == "sam2"

    Image.fromarray(image).save(tmp_path / "image.png")
    checkpoint = preset.sam.source.path
    again = users(tmp_path / "image.png", prompts, checkpoint, str(preset.sam.model_cfg), "cpu")
    assert all(np.array_equal(a["mask"], b["mask"]) for a, b in zip(again, results, strict=True))


def test_bad_prompts_are_refused_before_models_are_loaded(preset, monkeypatch):
    monkeypatch.setattr(guided, "load_sam2", None)
    with pytest.raises(ValueError, match="prompt 0: point"):
        segment_with_guided_prompts(np.zeros((8, 9, 3), np.uint8), [prompt()])


def test_no_prompts(preset):
    assert segment_with_guided_prompts(np.zeros((8, 9, 3), np.uint8), [], device="cpu") == []


def test_missing_checkpoint(preset, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pt does not exist"):
        segment_with_guided_prompts(
            np.zeros((32, 32, 3), np.uint8), [prompt()], tmp_path / "nowhere.pt", device="cpu"
        )


def test_settings_are_checked():
    with pytest.raises(ValueError, match="mask_choice"):
        dataclasses.replace(PipelineConfig(), mask_choice="best")
