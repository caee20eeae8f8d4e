"""Prompts on one image → one mask each, with SAM 2.

Points are (x, y) and boxes XYXY in pixels of the original image, `bbox` is XYWH, scores 0…1.
Shapes: N prompts, P points of a prompt, L side of SAM's mask logits, H×W image pixels.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.device import pick_device
from models.images import ImageSource, load_image
from models.presets import get_preset
from models.sam2_masks import PADDING, Sam2Masks
from models.weights import load_sam2

from .config import PipelineConfig
from .masks import choose_candidates
from .regions import Region

# Logits of a mask prompt run from minus to plus this much: what SAM 2's own masks look like.
_MASK_PROMPT_LOGIT = 8.0
_PROMPTS_AT_ONCE = 64  # keeps the candidates of thousands of prompts from piling up


def segment_with_guided_prompts(
    image: ImageSource,
    prompts: Sequence[Mapping[str, Any]],
    checkpoint_path: str | os.PathLike | None = None,
    model_cfg: str | None = None,
    device: str | None = None,
    *,
    preset: str = "vit-b16",
) -> list[dict[str, Any]]:
    """Load SAM 2 and give every prompt its mask.

    Args:
        image: path, PIL image or (H, W, 3) uint8 RGB array.
        prompts: dicts as from `extract_prompt_points_from_upsampled`; `point` is enough.
        checkpoint_path: SAM 2 weights; None takes the ones published for the configuration.
        model_cfg: SAM 2 configuration (`sam2_hiera_l.yaml`); None takes the preset's.
        device: cuda, mps or cpu; None takes the best there is.
        preset: which models where the two above are None.

    Returns:
        Per prompt its own entries and `mask` (H, W) bool, `score` (SAM 2's predicted IoU),
        `bbox` XYWH, `agreement` (IoU with the prompt's region; 0 if it has none) and `source`:
        "sam2", or "region" where SAM's answer was not trusted and the prompt's region is kept.

    Raises:
        ValueError, FileNotFoundError: prompts outside the image, bad names, missing weights.
    """
    pixels = load_image(image)
    size = pixels.shape[:2]
    _check_points(prompts, size)  # before the models are loaded
    target = pick_device(device)
    model: Any = load_sam2(get_preset(preset).sam, model_cfg=model_cfg, checkpoint=checkpoint_path)
    sam = Sam2Masks(model.to(target))
    sam.set_image(pixels)
    results = []
    for found in masks_from_prompts(sam, prompts, size, PipelineConfig()):
        region = found.pop("mask_region")
        x0, y0, x1, y1 = region.box
        results.append(found | {"mask": region.paste(size), "bbox": (x0, y0, x1 - x0, y1 - y0)})
    return results


def masks_from_prompts(
    sam: Sam2Masks,
    prompts: Sequence[Mapping[str, Any]],
    size: tuple[int, int],
    config: PipelineConfig,
) -> Iterator[dict[str, Any]]:
    """Decode prompts on the image that `sam` has set.

    Args:
        sam: with the image set.
        prompts: see `segment_with_guided_prompts`.
        size: (H, W) of the image.
        config: box and mask prompts, choice among candidates, fall-back thresholds.

    Yields:
        For each prompt, in order: its entries and `mask_region` (a tight crop), `score`,
        `agreement`, `source`.
    """
    _check_points(prompts, size)
    for start in range(0, len(prompts), _PROMPTS_AT_ONCE):
        some = prompts[start : start + _PROMPTS_AT_ONCE]
        low_res, iou = _decode(sam, some, size, config)
        knows_region = np.array(["component" in prompt for prompt in some])
        index = np.where(knows_region, 0, iou.argmax(1).numpy())
        agreement = np.zeros(len(some), np.float32)
        if knows_region.any():
            rows = np.flatnonzero(knows_region)
            index[rows], agreement[rows] = choose_candidates(
                low_res[rows].numpy(),
                iou[rows].numpy(),
                [some[row] for row in rows.tolist()],
                size,
                rule=config.mask_choice,
            )
        score = iou.numpy()[np.arange(len(some)), index].clip(0, 1)
        # Where SAM is unsure, or answers something else, the dense map's region is safer.
        trusted = (score >= config.min_score) & (agreement >= config.min_agreement)
        for row, prompt in enumerate(some):
            region, source = None, "sam2"
            if trusted[row] or not knows_region[row]:
                mask = sam.upscale(low_res[row, index[row]][None])[0].numpy()
                region = Region.from_mask(mask)
            if region is None or (region.area == 0 and knows_region[row]):
                region, source = prompt["component"], "region"
            yield {
                **prompt,
                "mask_region": region,
                "score": float(score[row]),
                "agreement": float(agreement[row]),
                "source": source,
            }


def _check_points(prompts: Sequence[Mapping[str, Any]], size: tuple[int, int]) -> None:
    height, width = size
    for number, prompt in enumerate(prompts):
        if "point" not in prompt:
            raise ValueError(f"prompt {number} has no 'point'; give (x, y) pixels of the image")
        for x, y in (*_positives(prompt), *prompt.get("negative_points", ())):
            if not (0 <= x < width and 0 <= y < height):
                raise ValueError(
                    f"prompt {number}: point ({x}, {y}) is (x, y) and must lie inside the image, "
                    f"which is {width} wide and {height} high"
                )


def _positives(prompt: Mapping[str, Any]) -> list[tuple[float, float]]:
    return list(prompt.get("points") or [prompt["point"]])


def _decode(
    sam: Sam2Masks,
    prompts: Sequence[Mapping[str, Any]],
    size: tuple[int, int],
    config: PipelineConfig,
) -> tuple[Tensor, Tensor]:
    """Mask logits (N, 3, L, L) and predicted IoU (N, 3).

    Box and mask prompts go to the prompts that know their component; the others have their points.
    """
    low_res = torch.empty(len(prompts), 3, sam.logits_side, sam.logits_side)
    iou = torch.empty(len(prompts), 3)
    wanted = config.prompt_box or config.prompt_mask
    extra = np.array([wanted and "component" in prompt for prompt in prompts])
    for rows in (np.flatnonzero(extra), np.flatnonzero(~extra)):
        if len(rows):
            chosen = [prompts[row] for row in rows.tolist()]
            arguments = _points(chosen, sam)
            if extra[rows[0]]:
                components = [prompt["component"] for prompt in chosen]
                arguments |= _box_and_mask(components, size, sam, config)
            low_res[rows], iou[rows] = sam.decode(**arguments)
    return low_res, iou


def _points(prompts: Sequence[Mapping[str, Any]], sam: Sam2Masks) -> dict[str, Any]:
    """The prompts' points as arrays for `Sam2Masks.decode`."""
    rows = [(_positives(p), list(p.get("negative_points", ()))) for p in prompts]
    longest = max(len(positive) + len(negative) for positive, negative in rows)
    points = np.zeros((len(rows), longest, 2), np.float32)
    labels = np.full((len(rows), longest), PADDING, np.int64)
    for row, (positive, negative) in enumerate(rows):
        count = len(positive) + len(negative)
        points[row, :count] = [*positive, *negative]
        labels[row, :count] = [1] * len(positive) + [0] * len(negative)
    return {"points": sam.middles(points), "labels": labels}


def _box_and_mask(
    components: Sequence[Region], size: tuple[int, int], sam: Sam2Masks, config: PipelineConfig
) -> dict[str, Any]:
    """What the configuration adds to the points, as arrays for `Sam2Masks.decode`.

    SAM was trained with boxes whose corners are its first and last pixel, both of the object: the
    last one begins one of SAM's pixels before the box's end.
    """
    arguments: dict[str, Any] = {}
    if config.prompt_box:
        boxes = np.array([region.box for region in components], np.float64)
        boxes[:, 2:] = np.maximum(boxes[:, 2:] - sam.sam_pixel(), boxes[:, :2])
        arguments["boxes"] = boxes.astype(np.float32)
    if config.prompt_mask:
        cover = np.stack([region.coverage(size, sam.logits_side) for region in components])
        logits = (2 * cover - 1) * _MASK_PROMPT_LOGIT
        arguments["mask_logits"] = torch.from_numpy(logits[:, None].astype(np.float32))
    return arguments
