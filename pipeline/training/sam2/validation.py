"""How good SAM 2's masks of rendered scenes are from one click each.

Shapes: N objects of one scene, L side of the mask logits, H×W pixels of the scene.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from models.sam2_masks import Sam2Masks

from ...world.scenes import Scene, World, render_scene
from .examples import pole

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base

HELD_OUT = 999  # first number of the validation scenes' seeds; training uses three numbers
SMALL_AREA = 900  # pixels
SCORES = ("miou", "miou_small", "miou_best", "correlation")


def held_out_scenes(world: World, count: int) -> list[Scene]:
    """`count` scenes with sides 224…384 that no training run sees."""
    scenes = []
    for index in range(count):
        rng = np.random.default_rng([HELD_OUT, index])
        size = (int(rng.integers(224, 385)), int(rng.integers(224, 385)))
        scenes.append(render_scene(world, rng, size=size))
    return scenes


def one_click(masks: Sam2Masks, scene: Scene) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Click the pole of every visible object.

    Returns:
        Predicted IoU (N, 3), true IoU (N, 3) at the scene's size, and area (N,) in pixels.
    """
    truths = [scene.instances == i + 1 for i in range(len(scene.objects))]
    points = np.array([[pole(truth)] for truth in truths], np.float32)  # (N, 1, 2)
    masks.set_image(scene.image)
    labels = np.ones(points.shape[:2], np.int32)
    logits, predicted = masks.decode(masks.middles(points), labels)
    true_iou = np.empty((len(truths), 3))
    for row, (truth, low) in enumerate(zip(truths, logits, strict=True)):
        for column, mask in enumerate(masks.upscale(low).numpy()):
            true_iou[row, column] = (mask & truth).sum() / (mask | truth).sum()
    return predicted.numpy(), true_iou, np.array([truth.sum() for truth in truths])


def validate(model: SAM2Base, world: World, count: int = 60) -> dict[str, float]:
    """Mean IoU over the objects of `count` held-out scenes, one click each.

    Args:
        model: in eval mode.

    Returns:
        `miou` of the mask with the highest predicted IoU, `miou_small` the same for objects
        under 900 pixels, `miou_best` of the best of three, `correlation` of predicted and true
        IoU of the chosen masks.
    """
    masks = Sam2Masks(model)
    with torch.inference_mode():
        results = [one_click(masks, s) for s in held_out_scenes(world, count) if s.objects]
    predicted, true_iou, area = (np.concatenate(parts) for parts in zip(*results, strict=True))
    rows, best = np.arange(len(area)), predicted.argmax(1)
    chosen = true_iou[rows, best]
    return {
        "miou": float(chosen.mean()),
        "miou_small": float(chosen[area < SMALL_AREA].mean()),
        "miou_best": float(true_iou.max(1).mean()),
        "correlation": float(np.corrcoef(predicted[rows, best], chosen)[0, 1]),
    }
