"""The networks that give every patch of an image a vector, by name.

    tiny, vit-b16               the CLIP of a preset, see `models.presets`
    open_clip:NAME_OR_FOLDER    a CLIP of open_clip's classes with a checkpoint of one's own
    timm:NAME                   a ViT of timm (DINOv2, DINOv3, …), weights from the hub's cache

Shapes: B images, C channels, h×w cells, H×W pixels, multiples of the patch.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..clip_dense import dense_features, visual_tower
from ..dense_methods import get_method
from ..presets import PRESETS, ClipPreset, Source, get_preset
from ..text import Tokenizer
from ..weight_files import WeightsNotFoundError, read_state_dict, resolve
from ..weights import build_clip, load_clip, load_strictly
from .base import Backbone, TextSide, denormalise

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
        attention: variant of CLIP's last block, one of `METHODS`; None is "csa".
        checkpoint: weights file; None takes the preset's, the folder's or the hub's.
        random_weights: load nothing, the same random values every time (tests and dry runs).
        device: where it computes.

    Raises:
        ValueError: unknown name, not a ViT, or options that do not go together.
        FileNotFoundError: weights are missing (`models.weight_files.WeightsNotFoundError` too).
        models.weight_files.WeightsError: they do not fit.
    """
    if checkpoint is not None and random_weights:
        raise ValueError("--checkpoint and --random-weights exclude each other: drop one")
    if checkpoint is not None and not checkpoint.is_file():
        raise FileNotFoundError(f"checkpoint {checkpoint} does not exist: give a weights file")
    weights = "random" if random_weights else str(checkpoint or "published")
    kind, _, name = spec.partition(":")
    if kind == "timm" and name:
        if attention is not None:
            raise ValueError(f"--attention {attention} is for CLIP, {spec} has one way: drop it")
        backbone = _timm(spec, name, checkpoint, random_weights, device)
        return dataclasses.replace(backbone, weights=weights)
    if attention is not None:
        get_method(attention)
    if kind == "open_clip" and name:
        preset = _custom_clip(name, checkpoint, random_weights)
    elif spec in PRESETS:
        preset = get_preset(spec).clip
        if checkpoint is not None:
            preset = dataclasses.replace(preset, source=Source(path=checkpoint))
    else:
        raise ValueError(
            f"unknown backbone {spec!r}; valid: {', '.join(PRESETS)}, timm:NAME, "
            "open_clip:NAME or open_clip:FOLDER"
        )
    backbone = _clip(spec, preset, attention or "csa", random_weights, device)
    return dataclasses.replace(backbone, weights=weights)


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
    spec: str, preset: ClipPreset, attention: str, random_weights: bool, device: torch.device | str
) -> Backbone:
    if random_weights:
        with _same_chance():
            clip, tokenizer = build_clip(preset.architecture)
    else:
        clip, tokenizer = load_clip(preset)
    clip.to(device).eval().requires_grad_(False)
    return clip_backbone(spec, clip, tokenizer, attention, device=device)


def clip_backbone(
    name: str,
    clip: nn.Module,
    tokenizer: Tokenizer,
    attention: str = "csa",
    *,
    device: torch.device | str = "cpu",
) -> Backbone:
    """A CLIP as a backbone, its last block changed by one of the dense methods.

    Where the method needs a second network, that is loaded too and shown the same images.

    Args:
        name: of the CLIP.
        clip: where it is to compute.
        tokenizer: of `clip`.
        attention: one of `models.dense_methods.METHODS`.
        device: of a second network.
    """
    method = get_method(attention)
    visual: Any = visual_tower(clip)
    patch = _square_patch(name, visual.patch_size)
    mean, std = visual.image_mean, visual.image_std
    second = build_backbone(method.proxy, device=device) if method.proxy else None

    def encode(images: Tensor) -> Tensor:
        proxy = None
        if second is not None:
            proxy = second.encode_resized(denormalise(images, mean, std), images.shape[2:], patch)
        return dense_features(clip, images, attention, proxy)

    return Backbone(
        name=f"{name} ({attention})",
        dim=visual.ln_post.normalized_shape[0] if visual.proj is None else visual.proj.shape[1],
        patch=patch,
        mean=mean,
        std=std,
        model=clip,
        encode=encode,
        text=TextSide(clip, tokenizer),
        second=second,
    )


def _timm(
    spec: str, name: str, checkpoint: Path | None, random_weights: bool, device: torch.device | str
) -> Backbone:
    import timm

    if not timm.is_model(name):
        near = timm.list_models(f"*{name.split('.')[0][:16]}*")[:3]
        hint = f"; near it: {', '.join(near)}" if near else "; see timm.list_models('vit_*')"
        raise ValueError(f"unknown timm model {name!r}{hint}")
    try:
        with _same_chance():
            model: Any = timm.create_model(
                name, pretrained=False, num_classes=0, dynamic_img_size=True
            )
        prefix, patch_size = model.num_prefix_tokens, model.patch_embed.patch_size
    except (TypeError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{name} is not a ViT with patch tokens ({reason}); use a vit_…"
        ) from error
    if not random_weights:
        _load_timm(model, name, checkpoint)
    model.to(device).eval().requires_grad_(False)
    patch = _square_patch(spec, patch_size)

    def encode(images: Tensor) -> Tensor:
        h, w = images.shape[2] // patch, images.shape[3] // patch
        tokens = model.forward_features(images)[:, prefix:]  # (B, h·w, C)
        return tokens.transpose(1, 2).unflatten(2, (h, w))

    return Backbone(
        name=spec,
        dim=model.num_features,
        patch=patch,
        mean=tuple(model.pretrained_cfg["mean"]),
        std=tuple(model.pretrained_cfg["std"]),
        model=model,
        encode=encode,
    )


def _load_timm(model: Any, name: str, checkpoint: Path | None) -> None:
    """Load a file, or the published weights from the hub's cache, strictly."""
    published = model.pretrained_cfg
    if checkpoint is None:
        if not published.get("hf_hub_id"):
            raise ValueError(f"timm names no weights for {name}: add its tag, or --checkpoint FILE")
        files = ("model.safetensors", "pytorch_model.bin")
        try:
            checkpoint = resolve(Source(repo_id=published["hf_hub_id"], filenames=files))
        except WeightsNotFoundError as error:
            raise WeightsNotFoundError(
                f"weights missing: {published['hf_hub_id']} is not in the Hugging Face cache and "
                "could not be downloaded; run once with network, or add --checkpoint FILE"
            ) from error
    state = read_state_dict(checkpoint)
    # What timm itself does between a published file and its own names; then the classifier goes.
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    state = convert(state, model) if convert else state
    heads = published.get("classifier") or ()
    heads = tuple(f"{head}." for head in ([heads] if isinstance(heads, str) else heads))
    state = {k: v for k, v in state.items() if not k.startswith(heads)}
    load_strictly(model, state, checkpoint)


@contextmanager
def _same_chance() -> Iterator[None]:
    """Random weights that every process and every resumed run has again."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def _square_patch(spec: str, patch_size: tuple[int, int]) -> int:
    if patch_size[0] != patch_size[1]:
        raise ValueError(f"{spec} has patches of {patch_size} pixels; only squares will do")
    return patch_size[0]
