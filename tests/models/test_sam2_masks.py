"""SAM 2 with random weights: what is tested is the plumbing around it."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from models.presets import PRESETS, AutomaticMasks
from models.sam2_masks import Sam2Masks
from models.sam2_networks import build_sam2
from models.weights import load_sam2
from pipeline.world.scenes import load_world, render_scene

TINY = Path(__file__).parents[2] / "models" / "tiny" / "sam2_tiny.yaml"
HEIGHT, WIDTH = 48, 80  # H ≠ W
SQUARE, SIDE = 512, 128  # of the tiny model's images and of its logits
LEVELS = [(SIDE, SIDE), (SIDE // 2, SIDE // 2), (SIDE // 4, SIDE // 4)]  # of its features


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_sam2(TINY)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture
def masks(model, image) -> Sam2Masks:
    masks = Sam2Masks(model)
    masks.set_image(image)
    return masks


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    return render_scene(
        load_world(), np.random.default_rng(1), size=(96, 144), objects=(2, 2), side=(40, 60)
    ).image


@pytest.fixture
def prompts() -> tuple[np.ndarray, np.ndarray]:
    """Five prompts of up to three points, padded in several places."""
    rng = np.random.default_rng(1)
    points = rng.uniform(0, (WIDTH, HEIGHT), (5, 3, 2)).astype(np.float32)
    labels = np.array([[1, -1, -1], [1, 0, -1], [1, 0, 0], [-1, 1, 0], [-1, -1, 1]], np.int32)
    return points, labels


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


def test_shapes_and_types(masks, prompts):
    logits, iou = masks.decode(*prompts)
    assert logits.shape == (5, 3, SIDE, SIDE) and logits.dtype == torch.float32
    assert iou.shape == (5, 3) and iou.dtype == torch.float32
    assert 0 <= iou.min() and iou.max() <= 1
    large = masks.upscale(logits[0])
    assert large.shape == (3, HEIGHT, WIDTH) and large.dtype == torch.bool


def test_prompts_do_not_see_their_batch_mates(masks, prompts):
    points, labels = prompts
    together, iou = masks.decode(points, labels, batch_size=5)
    for row in range(5):
        real = labels[row] != -1
        alone = masks.decode(points[row : row + 1, real], labels[row : row + 1, real])
        close(together[row], alone[0][0])
        close(iou[row], alone[1][0])
    one_by_one, _ = masks.decode(points, labels, batch_size=1)
    close(one_by_one, together)


def test_prompts_differ(masks, prompts):
    # Otherwise the comparisons of this file would hold for a decoder that ignores its prompts.
    logits, _ = masks.decode(*prompts)
    gaps = [(logits[i] - logits[j]).abs().max().item() for i in range(5) for j in range(i)]
    assert min(gaps) > 1e-3


def test_equals_the_predictor_of_sam2(model, masks, image, prompts):
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    predictor = SAM2ImagePredictor(model)
    predictor._bb_feat_sizes = LEVELS
    predictor.set_image(image)
    points, labels = prompts[0][2:3], prompts[1][2:3]
    boxes = np.array([[5, 7, 60, 40]], np.float32)
    coarse = np.random.default_rng(2).normal(0, 4, (1, 1, SIDE, SIDE)).astype(np.float32)
    expected, expected_iou, expected_low = predictor.predict(
        points[0], labels[0], boxes[0], coarse[0], multimask_output=True
    )
    logits, iou = masks.decode(points, labels, boxes, coarse)
    close(logits[0], torch.from_numpy(expected_low))
    close(iou[0], torch.from_numpy(expected_iou))
    disagreement = (masks.upscale(logits[0]).numpy() != expected.astype(bool)).mean()
    assert disagreement < 1e-3


def test_bfloat16_is_the_encoders_alone(model, masks, image, prompts):
    rough = Sam2Masks(model, dtype=torch.bfloat16)
    rough.set_image(image)
    assert all(x.dtype == torch.float32 for x in (rough._embedding, *rough._fine))
    cosines = torch.cosine_similarity(rough._embedding, masks._embedding, dim=1)
    assert 0.999 < cosines.min() < 1
    (logits, iou), (expected, expected_iou) = rough.decode(*prompts), masks.decode(*prompts)
    assert 0 < (iou - expected_iou).abs().max() < 0.02
    assert ((logits > 0) == (expected > 0)).float().mean() > 0.98


def test_boxes_alone_and_mask_prompts(masks):
    boxes = np.array([[5, 7, 60, 40], [0, 0, 20, 20]], np.float32)
    coarse = np.zeros((2, 1, SIDE, SIDE), np.float32)
    coarse[1, 0, :20, :20] = 8
    plain, _ = masks.decode(None, None, boxes)
    prompted, _ = masks.decode(None, None, boxes, coarse)
    assert (plain - prompted).abs().max() > 1e-4
    second, _ = masks.decode(None, None, boxes[1:], coarse[1:])
    close(prompted[1], second[0])


def test_points_are_x_y_pixels_of_the_original_image(masks, monkeypatch):
    seen = {}

    def record(points, boxes, masks):
        seen["points"], seen["labels"] = points
        raise StopIteration

    monkeypatch.setattr(masks.model.sam_prompt_encoder, "forward", record)
    with pytest.raises(StopIteration):
        masks.decode(
            np.array([[[20.0, 36.0]]]), np.array([[0]]), np.array([[8.0, 12.0, 40.0, 24.0]])
        )
    # the box's corners come first
    expected = np.array([[8, 12], [40, 24], [20, 36]]) * [SQUARE / WIDTH, SQUARE / HEIGHT]
    np.testing.assert_allclose(seen["points"][0], expected, rtol=1e-6)
    assert seen["labels"].tolist() == [[2, 3, 0]]


def test_upscale_places_a_quarter(masks):
    logits = torch.full((1, SIDE, SIDE), -4.0)
    logits[0, SIDE // 2 :, : SIDE // 4] = 4.0  # lower half, left quarter
    mask = masks.upscale(logits)[0]
    expected = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    expected[HEIGHT // 2 :, : WIDTH // 4] = True
    assert torch.equal(mask, expected)


def test_threshold(model, image):
    strict = Sam2Masks(model, mask_threshold=2.0)
    strict.set_image(image)
    levels = torch.stack([torch.full((SIDE, SIDE), v) for v in (1.0, 3.0)])
    assert strict.upscale(levels).flatten(1).all(1).tolist() == [False, True]


def test_no_prompts(masks):
    logits, iou = masks.decode(np.zeros((0, 1, 2)), np.zeros((0, 1)))
    assert logits.shape == (0, 3, SIDE, SIDE) and iou.shape == (0, 3)
    assert masks.upscale(logits[:, 0]).shape == (0, HEIGHT, WIDTH)


def test_order_of_calls(model):
    masks = Sam2Masks(model)
    with pytest.raises(RuntimeError, match="set_image"):
        masks.decode(np.zeros((1, 1, 2)), np.ones((1, 1)))
    with pytest.raises(RuntimeError, match="set_image"):
        masks.upscale(torch.zeros(1, SIDE, SIDE))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": np.ones((2, 2))}, "labels must be"),
        ({"points": np.zeros((2, 1, 3))}, "points must be"),
        ({"labels": np.full((2, 1), 2)}, "Labels must be"),
        ({"labels": np.array([[1], [-1]])}, "Prompt 1 has neither"),
        ({"points": np.full((2, 1, 2), np.nan)}, "finite"),
        ({"points": None, "labels": None}, "Give points"),
        ({"labels": None}, "go together"),
        ({"boxes": np.zeros((3, 4))}, "points must be"),
        ({"mask_logits": np.zeros((2, 1, 32, 32))}, "mask_logits must be"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_bad_prompts(masks, changed, message):
    arguments = {"points": np.zeros((2, 1, 2)), "labels": np.ones((2, 1)), **changed}
    with pytest.raises(ValueError, match=message):
        masks.decode(**arguments)


@pytest.mark.parametrize(
    "bad", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)]
)
def test_bad_image(model, bad):
    with pytest.raises(ValueError, match=r"\(H, W, 3\) uint8"):
        Sam2Masks(model).set_image(bad)


def test_automatic_masks_share_the_embedding(scene, monkeypatch):
    """One encoding, and the masks of a generator that encodes for itself."""
    from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator

    model = load_sam2(PRESETS["tiny"].sam)
    # The tiny model's masks are less stable than those that SAM's thresholds were made for.
    generator = SAM2AutomaticMaskGenerator(
        model, points_per_side=6, pred_iou_thresh=0.4, stability_score_thresh=0.05
    )
    generator.predictor._bb_feat_sizes = LEVELS
    expected = generator.generate(scene)

    calls = []
    forward = model.forward_image
    monkeypatch.setattr(model, "forward_image", lambda x: calls.append(len(x)) or forward(x))
    masks = Sam2Masks(model)
    masks.set_image(scene)
    records = masks.automatic(
        scene, AutomaticMasks(points_per_side=6, predicted_iou=0.4, stability=0.05)
    )
    assert calls == [1]
    assert len(records) == len(expected) > 1
    for record, other in zip(records, expected, strict=True):
        one, two = record["segmentation"], other["segmentation"]
        assert one.shape == scene.shape[:2] and one.dtype == bool
        assert (one & two).sum() > 0.99 * (one | two).sum() > 0
        assert record["predicted_iou"] == pytest.approx(other["predicted_iou"], abs=1e-4)

    turned = np.ascontiguousarray(scene[:, ::-1])
    masks.automatic(turned, AutomaticMasks(points_per_side=2))
    masks.set_image(turned)  # set already, by the call before
    assert calls == [1, 1]


def test_no_automatic_masks(masks, image):
    assert masks.automatic(image, AutomaticMasks(points_per_side=2, predicted_iou=1.1)) == []
    with pytest.raises(ValueError, match="points_per_side must be at least 1, got 0"):
        AutomaticMasks(points_per_side=0)


def test_the_tiny_preset_finds_masks_with_its_own_settings(scene):
    preset = PRESETS["tiny"].sam
    few = dataclasses.replace(preset.automatic, points_per_side=6)
    masks = Sam2Masks(load_sam2(preset))
    assert len(masks.automatic(scene, few)) > 1
    assert not masks.automatic(scene, AutomaticMasks(points_per_side=6))  # the official thresholds
