"""The networks that give every patch of an image a vector, by name.

    tiny, vit-b16               the CLIP of a preset, see `models.presets`
    dinov2_vits14, …            a row of `models.backbones.registry.BACKBONES`
    open_clip:NAME_OR_FOLDER    a CLIP of open_clip's classes with a checkpoint of one's own
    timm:NAME, timm:NAME@STRIDE a network of timm, see `models.backbones.timm_networks`

Shapes: B images, C channels, h×w cells, H×W pixels, multiples of the patch.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..clip_dense import dense_features, visual_tower
from ..dense_methods import get_method
from ..dense_methods.settings import MethodSettings
from ..presets import PRESETS, ClipPreset, Source, get_preset
from ..proxies import Proxy
from ..regions import resize_regions
from ..text import Tokenizer
from ..weights import build_clip, load_clip
from .base import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Backbone,
    TextSide,
    denormalise,
    same_chance,
    square_patch,
)
from .registry import BACKBONES, backbone_names
from .timm_networks import timm_backbone

CLIP_WEIGHTS = "open_clip_model.safetensors"  # beside a folder's open_clip_config.json


def build_backbone(
    spec: str,
    *,
    attention: str | None = None,
    checkpoint: Path | None = None,
    random_weights: bool = False,
    device: torch.device | str = "cpu",
) -> Backbone:
    """Build and load a backbone.

    Args:
        spec: see the module's docstring.
        attention: variant of CLIP's last block, one of `METHODS`; None is the row's, or "csa".
        checkpoint: weights file; None takes the preset's, the folder's or the hub's.
        random_weights: load nothing, the same random values every time (tests and dry runs).
        device: where it computes.

    Raises:
        ValueError: unknown name, no feature grid, or options that do not go together.
        FileNotFoundError: weights are missing (`models.weight_files.WeightsNotFoundError` too).
        models.weight_files.WeightsError: they do not fit.
    """
    if checkpoint is not None and random_weights:
        raise ValueError("--checkpoint and --random-weights exclude each other: drop one")
    if checkpoint is not None and not checkpoint.is_file():
        raise FileNotFoundError(f"checkpoint {checkpoint} does not exist: give a weights file")
    row = BACKBONES.get(spec)
    network = row.network if row else spec
    if network.startswith("timm:") and attention is not None:
        raise ValueError(f"--attention {attention} is for CLIP, {spec} has one way: drop it")
    if row and row.attention and attention not in (None, row.attention):
        raise ValueError(f"{spec} is --attention {row.attention}, not {attention}: drop it")
    if network.startswith("timm:"):
        backbone = timm_backbone(
            network,
            checkpoint=checkpoint,
            random_weights=random_weights,
            device=device,
            positions=row.positions if row else "timm",
            layer=row.layer if row else "norm",
        )
    else:
        attention = attention or (row.attention if row else "csa")
        backbone = _clip(network, attention, checkpoint, random_weights, device)
    weights = "random" if random_weights else str(checkpoint or "published")
    backbone = dataclasses.replace(backbone, weights=weights)
    if row is None:
        return backbone
    return dataclasses.replace(
        backbone, name=spec, kind=row.features or spec, mean=IMAGENET_MEAN, std=IMAGENET_STD
    )


def _custom_clip(name: str, checkpoint: Path | None, random_weights: bool) -> ClipPreset:
    folder = Path(name)
    architecture: str | Path = name
    if folder.is_dir():
        if not (folder / "open_clip_config.json").is_file():
            raise FileNotFoundError(f"folder {folder} holds no open_clip_config.json")
        architecture = folder
        if checkpoint is None and (folder / CLIP_WEIGHTS).is_file():
            checkpoint = folder / CLIP_WEIGHTS
    if checkpoint is None and not random_weights:
        raise ValueError(f"open_clip:{name} needs its weights: add --checkpoint FILE")
    return ClipPreset(architecture=architecture, features=name, source=Source(path=checkpoint))


def _clip(
    spec: str,
    attention: str,
    checkpoint: Path | None,
    random_weights: bool,
    device: torch.device | str,
) -> Backbone:
    if get_method(attention).proxy:
        raise ValueError(f"--attention {attention} needs a second network, which {spec} has not")
    kind, _, name = spec.partition(":")
    if kind == "open_clip" and name:
        preset = _custom_clip(name, checkpoint, random_weights)
    elif spec in PRESETS:
        preset = get_preset(spec).clip
        if checkpoint is not None:
            preset = dataclasses.replace(preset, source=Source(path=checkpoint))
    else:
        raise ValueError(f"unknown backbone {spec!r}; valid: {', '.join(backbone_names())}")
    if random_weights:
        with same_chance():
            clip, tokenizer = build_clip(preset.architecture)
    else:
        clip, tokenizer = load_clip(preset)
    clip.to(device).eval().requires_grad_(False)
    backbone = clip_backbone(spec, clip, tokenizer, MethodSettings(attention=attention))
    return dataclasses.replace(backbone, kind=preset.features)


def clip_backbone(
    name: str,
    clip: nn.Module,
    tokenizer: Tokenizer,
    settings: MethodSettings = MethodSettings(),  # noqa: B008 (frozen)
    *,
    statistics: str = "clip",
    proxy: Proxy | None = None,
) -> Backbone:
    """A CLIP as a backbone, made dense by one of the dense methods.

    Args:
        name: of the CLIP.
        clip: where it is to compute.
        tokenizer: of `clip`.
        settings: of the method.
        statistics: of the colours its images are normalised with: "clip" for its own, "imagenet"
            for ImageNet's.
        proxy: the second network, where the method needs one; it is shown the same images.
    """
    method = get_method(settings.attention)
    assert proxy is not None or not method.proxy, "the method needs it"
    visual: Any = visual_tower(clip)
    patch = square_patch(name, visual.patch_size)
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    if statistics == "clip":
        mean, std = visual.image_mean, visual.image_std

    def encode(images: Tensor, regions: Tensor | None = None) -> Tensor:
        seen = None
        if proxy is not None:
            seen = proxy.features(denormalise(images, mean, std))
        if regions is not None:
            assert seen is not None, "regions lie on the proxy's grid"
            regions = resize_regions(regions, seen.shape[2:])
        return dense_features(clip, images, None, seen, regions, settings=settings)

    return Backbone(
        name=f"{name} ({settings.attention})",
        dim=visual.ln_post.normalized_shape[0] if visual.proj is None else visual.proj.shape[1],
        patch=patch,
        mean=mean,
        std=std,
        model=clip,
        encode=encode,
        text=TextSide(clip, tokenizer),
        regions=method.regions,
    )
