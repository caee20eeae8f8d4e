"""timm's networks as backbones: the patch tokens of a ViT, or one stage of a network of stages.

Shapes: B images, C channels, h×w cells, H×W pixels, D channels of a ViT's tokens.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..presets import Source
from ..weight_files import WeightsError, WeightsNotFoundError, read_state_dict, resolve
from ..weights import load_strictly
from .base import Backbone, same_chance, square_patch
from .positions import resize_positions

DEFAULT_STRIDE = 16  # of the stage that is taken of a network of stages
Encode = Callable[[Tensor], Tensor]


def timm_backbone(
    spec: str,
    *,
    checkpoint: Path | None,
    random_weights: bool,
    device: torch.device | str,
    positions: str = "timm",
    layer: str = "norm",
) -> Backbone:
    """A network of timm, its classifier left out.

    Args:
        spec: timm:NAME of a ViT, or timm:NAME@STRIDE of a network of stages (convolutional ones
            and such as Swin): the last stage with cells of STRIDE pixels, 16 unless told.
        checkpoint, random_weights, device: see `build_backbone`.
        positions, layer: see `models.backbones.registry.BackboneRow`.

    Raises:
        ValueError: unknown name, no feature grid, or a stride it does not have.
        WeightsNotFoundError, WeightsError: see `models.weight_files`.
    """
    name, at, stride = spec.removeprefix("timm:").partition("@")
    if at and not stride.isdecimal():
        raise ValueError(f"backbone {spec!r}: the stride after @ must be a number of pixels")
    model = _create(name)
    is_vit = hasattr(model, "num_prefix_tokens") and hasattr(model, "patch_embed")
    if is_vit:
        patch, encode = _token_grid(spec, model, positions, layer)
        if at and int(stride) != patch:
            raise ValueError(f"{name} has patches of {patch} pixels, not {stride}: drop @{stride}")
    else:
        patch, encode = _stage_grid(name, model, int(stride or DEFAULT_STRIDE))
    if not random_weights:
        _load(model, name, checkpoint)
    model.eval().requires_grad_(False)
    dim = _check_grid(name, encode, patch)
    model.to(device)
    return Backbone(
        name=spec,
        dim=dim,
        patch=patch,
        mean=tuple(model.pretrained_cfg["mean"]),
        std=tuple(model.pretrained_cfg["std"]),
        model=model,
        encode=encode,
    )


def _create(name: str) -> Any:
    """The untrained network; a ViT that takes images of any size."""
    import timm

    if not timm.is_model(name):
        near = timm.list_models(f"*{name.split('.')[0][:16]}*")[:3]
        hint = f"; near it: {', '.join(near)}" if near else "; see timm.list_models()"
        raise ValueError(f"unknown timm model {name!r}{hint}")
    with same_chance():
        try:
            return timm.create_model(name, pretrained=False, num_classes=0, dynamic_img_size=True)
        except TypeError:  # only ViTs know of this option
            return timm.create_model(name, pretrained=False, num_classes=0)


def _token_grid(spec: str, model: Any, positions: str, layer: str) -> tuple[int, Encode]:
    """Patch and encoder of a ViT: its patch tokens."""
    patch, prefix = square_patch(spec, model.patch_embed.patch_size), model.num_prefix_tokens
    forward = {"timm": model.forward_features, "offset": lambda x: _offset_tokens(model, x)}

    def encode(images: Tensor) -> Tensor:
        h, w = images.shape[2] // patch, images.shape[3] // patch
        if layer == "qk":
            with _last_queries_and_keys(model) as found:
                forward[positions](images)
            tokens = found[0][:, prefix:]  # (B, h·w, C)
        else:
            tokens = forward[positions](images)[:, prefix:]
        return tokens.transpose(1, 2).unflatten(2, (h, w))

    return patch, encode


@contextmanager
def _last_queries_and_keys(model: Any) -> Iterator[list[Tensor]]:
    """The list gets q + k (B, T, D), heads side by side, of the last block of a forward pass."""
    found: list[Tensor] = []

    def keep(_: Any, __: Any, qkv: Tensor) -> None:
        queries, keys, _values = qkv.chunk(3, dim=-1)
        found.append(queries + keys)

    handle = model.blocks[-1].attn.qkv.register_forward_hook(keep)
    try:
        yield found
    finally:
        handle.remove()


def _offset_tokens(model: Any, images: Tensor) -> Tensor:
    """Tokens (B, 1 + h·w, D) of a ViT whose positions are resized as DINOv2's own code does."""
    patches = model.patch_embed(images)  # (B, h, w, D)
    trained = model.pos_embed[0]
    grid = resize_positions(trained[1:], model.patch_embed.grid_size, tuple(patches.shape[1:3]))
    first = (model.cls_token + trained[:1]).expand(len(images), -1, -1)
    tokens = torch.cat([first, patches.flatten(1, 2) + grid], dim=1)
    return model.norm(model.blocks(tokens))


def _stage_grid(name: str, model: Any, stride: int) -> tuple[int, Encode]:
    """Patch and encoder of a network of stages: the last one of that stride."""
    stages = getattr(model, "feature_info", None)
    if not stages or not hasattr(model, "forward_intermediates"):
        raise ValueError(f"{name} has no feature grid that timm knows of: take another network")
    strides = [stage["reduction"] for stage in stages]
    if stride not in strides:
        known = ", ".join(f"timm:{name}@{n}" for n in dict.fromkeys(strides))
        raise ValueError(f"{name} has no stage of stride {stride}; it has {known}")
    index = max(i for i, n in enumerate(strides) if n == stride)

    def encode(images: Tensor) -> Tensor:
        return model.forward_intermediates(
            images, indices=[index], intermediates_only=True, stop_early=True
        )[0]

    return stride, encode


def _check_grid(name: str, encode: Encode, patch: int) -> int:
    """C, after a look whether images of any size have a cell per patch."""
    side = patch * -(-32 // patch)
    with torch.no_grad():
        try:
            features = encode(torch.zeros(1, 3, 2 * side, 3 * side))
        except (AssertionError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{name} does not take images of any size ({reason}): take another network"
            ) from error
    expected = (2 * side // patch, 3 * side // patch)
    if features.ndim != 4 or features.shape[2:] != expected:
        raise ValueError(
            f"{name} answers {tuple(features.shape)} to an image of {2 * side}x{3 * side}, not a "
            f"grid of {expected[0]}x{expected[1]}: take another network"
        )
    return features.shape[1]


def _load(model: Any, name: str, checkpoint: Path | None) -> None:
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
    state = _timm_names(model, read_state_dict(checkpoint), checkpoint)
    heads = published.get("classifier") or ()
    heads = tuple(f"{head}." for head in ([heads] if isinstance(heads, str) else heads))
    state = {k: v for k, v in state.items() if not k.startswith(heads)}
    load_strictly(model, state, checkpoint)


def _timm_names(model: Any, state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """What timm itself does between a published file and its own names."""
    held, wanted = state.get("pos_embed"), getattr(model, "pos_embed", None)
    if held is not None and wanted is not None and held.ndim == wanted.ndim == 3:
        patches = model.patch_embed.num_patches
        if held.shape[1] - patches not in (0, 1, model.num_prefix_tokens):
            raise WeightsError(  # timm would resize them, and not as the network's own code does
                f"checkpoint {path} does not fit {type(model).__name__}: it holds {held.shape[1]} "
                f"positions for {patches} patches. Give the checkpoint made for this model"
            )
    if "register_tokens" in state:
        # DINOv2's own names, which timm tells by a token that only training needs: a file for
        # inference may lack it.
        state.setdefault("mask_token", torch.empty(0))
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    return convert(state, model) if convert else state
