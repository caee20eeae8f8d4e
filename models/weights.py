"""From presets, names and files to networks with their weights, strictly loaded."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from .anyup.network import AnyUp
from .loftup.heads import head_of
from .loftup.network import LoftUp
from .naf.network import NAF
from .presets import (
    ANYUPS,
    DEFAULT_ANYUP,
    DEFAULT_NAF,
    LOFTUPS,
    NAFS,
    ClipPreset,
    SamPreset,
    Source,
)
from .weight_files import WeightsError, read_state_dict, resolve

Tokenizer = Callable[[list[str]], Tensor]  # texts -> (N, context) int64


def load_strictly(module: nn.Module, state: dict[str, Tensor], path: str | os.PathLike) -> None:
    """`load_state_dict(strict=True)` with a one-line error that names the difference.

    The module keeps its own dtype: half-precision files are made for the disk.

    Args:
        module: takes the weights.
        state: its state dict, in any floating type.
        path: where `state` comes from, for the messages.

    Raises:
        WeightsError: keys or shapes are not the module's, or values are not finite.
    """
    wanted = module.state_dict()
    missing = [k for k in wanted if k not in state]
    extra = [k for k in state if k not in wanted]
    shapes = [
        f"{k} is {tuple(state[k].shape)}, not {tuple(wanted[k].shape)}"
        for k in wanted
        if k in state and state[k].shape != wanted[k].shape
    ]
    parts = [
        f"{len(found)} {what} ({', '.join(found[:2])}{', …' if len(found) > 2 else ''})"
        for what, found in (("missing", missing), ("unknown", extra), ("of another shape", shapes))
        if found
    ]
    if parts:
        raise WeightsError(
            f"checkpoint {path} does not fit {type(module).__name__}: of {len(wanted)} tensors "
            f"{'; '.join(parts)}. Give the checkpoint made for this model or choose its config"
        )
    for name, value in state.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise WeightsError(f"checkpoint {path} is damaged: {name} holds NaN or infinite values")
    module.load_state_dict(state, strict=True)  # copies into the module's own dtype


def load_clip(preset: ClipPreset) -> tuple[nn.Module, Tokenizer]:
    """The preset's CLIP in eval mode on the CPU, and its tokenizer.

    `clip.visual.image_mean` and `.image_std` hold the normalisation of its input.
    """
    path = resolve(preset.source)
    state = read_state_dict(path)  # before the build: that takes seconds
    clip, tokenizer = build_clip(preset.architecture)
    # OpenAI's own files carry three numbers and masks beside the tensors of the network.
    beside = ("input_resolution", "context_length", "vocab_size", "attn_mask")
    state = {k: v for k, v in state.items() if k.rpartition(".")[2] not in beside}
    load_strictly(clip, state, path)
    return clip.eval().requires_grad_(False), tokenizer


def build_clip(architecture: str | Path) -> tuple[nn.Module, Tokenizer]:
    """An untrained CLIP of open_clip's classes, and its tokenizer.

    Args:
        architecture: a name of open_clip (one of OpenAI's, or trained with their preprocessing),
            or a folder that holds an `open_clip_config.json`.

    Raises:
        ValueError: unknown name.
    """
    import open_clip

    # Not open_clip.create_model: it warns that no weights were loaded, which comes later here.
    if isinstance(architecture, Path):
        config = json.loads((architecture / "open_clip_config.json").read_text(encoding="utf-8"))
        model, preprocess = config["model_cfg"], config["preprocess_cfg"]
        length = model["text_cfg"]["context_length"]
        tokenizer = open_clip.SimpleTokenizer(context_length=length)
    else:
        model = open_clip.get_model_config(architecture)
        if model is None:
            raise ValueError(
                f"unknown CLIP architecture {architecture!r}; see open_clip.list_models()"
            )
        preprocess = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
        tokenizer = open_clip.get_tokenizer(architecture)
    clip = open_clip.CLIP(**model)
    visual: Any = clip.visual
    visual.image_mean, visual.image_std = tuple(preprocess["mean"]), tuple(preprocess["std"])
    return clip, tokenizer


def load_loftup(name_or_path: str | os.PathLike) -> LoftUp:
    """LoftUp in eval mode on the CPU, from one of the names in `models.presets` or from a file.

    Raises:
        WeightsNotFoundError, WeightsError: see `resolve`, `read_state_dict`, `load_strictly`.
        ValueError: neither a known name nor an existing file.
    """
    preset = LOFTUPS.get(str(name_or_path))
    sources = {name: known.source for name, known in LOFTUPS.items()}
    path = _named_or_given(name_or_path, sources, "LoftUp", "path")
    state = read_state_dict(path)
    norm = state.get("channelnorm.norm.weight")
    if norm is None:
        raise WeightsError(_why_no_loftup(path, state))
    if preset is not None and len(norm) != preset.dim:
        raise WeightsError(
            f"checkpoint {path} upsamples {len(norm)} channels, {name_or_path} has {preset.dim}"
        )
    loftup = LoftUp(len(norm), head_of(state))
    load_strictly(loftup, state, path)
    return loftup.eval().requires_grad_(False)


def _why_no_loftup(path: Path, state: dict[str, Tensor]) -> str:
    if any(key.endswith("fourier_feat.1.biases") for key in state):
        return (
            f"checkpoint {path} is a LoftUp without its channel norm, as the published training "
            "scripts write it; the released ones have channelnorm.norm.weight and .bias: give one "
            "of these, or train one with scripts/train_loftup.py"
        )
    return f"checkpoint {path} is no LoftUp: it has no channelnorm.norm.weight"


def _named_or_given(
    name_or_path: str | os.PathLike, sources: dict[str, Source], what: str, accepted: str
) -> Path:
    """The file of one of the names in `sources`, or else the path itself."""
    name = str(name_or_path)
    if name in sources:
        return resolve(sources[name])
    path = Path(name_or_path)
    if not path.suffix and not path.exists():
        raise ValueError(
            f"unknown {what} {name!r}: give the {accepted} of a checkpoint or one of "
            f"{', '.join(sources)}"
        )
    return path


def _addressed_or_given(
    name_or_path: str | os.PathLike, sources: dict[str, Source], what: str
) -> Path:
    """The file at an address, of one of the names in `sources`, or else the path itself."""
    if str(name_or_path).startswith(("http://", "https://")):
        return resolve(Source(url=str(name_or_path)))
    return _named_or_given(name_or_path, sources, what, "path or address")


def load_anyup(name_or_path: str | os.PathLike = DEFAULT_ANYUP) -> AnyUp:
    """AnyUp in eval mode on the CPU, from one of `models.presets.ANYUPS`, an address or a file.

    Raises:
        WeightsNotFoundError, WeightsError: see `resolve`, `read_state_dict`, `load_strictly`.
        ValueError: neither a known name nor an address nor an existing file.
    """
    path = _addressed_or_given(name_or_path, ANYUPS, "AnyUp")
    state = read_state_dict(path)
    first = state.get("image_encoder.0.weight")
    if first is None:
        raise WeightsError(f"checkpoint {path} is no AnyUp: it has no image_encoder.0.weight")
    anyup = AnyUp(len(first))
    load_strictly(anyup, state, path)
    return anyup.eval().requires_grad_(False)


def load_naf(name_or_path: str | os.PathLike = DEFAULT_NAF) -> NAF:
    """NAF in eval mode on the CPU, from one of `models.presets.NAFS`, an address or a file.

    Raises:
        WeightsNotFoundError, WeightsError: see `resolve`, `read_state_dict`, `load_strictly`.
        ValueError: neither a known name nor an address nor an existing file.
    """
    path = _addressed_or_given(name_or_path, NAFS, "NAF")
    state = read_state_dict(path)
    first = state.get("image_encoder.sem_encoder.0.weight")
    if first is None:
        raise WeightsError(
            f"checkpoint {path} is no NAF: it has no image_encoder.sem_encoder.0.weight"
        )
    naf = NAF(2 * len(first))
    load_strictly(naf, state, path)
    return naf.eval().requires_grad_(False)


def load_sam2(
    preset: SamPreset,
    *,
    model_cfg: str | None = None,
    checkpoint: str | os.PathLike | None = None,
) -> nn.Module:
    """SAM 2 in eval mode on the CPU.

    Args:
        preset: what to load where the other two are None.
        model_cfg: configuration as in the sam2 package (`sam2_hiera_l.yaml`), or a YAML file.
        checkpoint: weights file; None takes the one published for the configuration.

    Raises:
        WeightsNotFoundError, WeightsError: see `resolve`, `read_state_dict`, `load_strictly`.
        ValueError: unknown configuration, or one without a published checkpoint.
    """
    from .sam2_networks import build_sam2

    path = resolve(sam2_source(preset, model_cfg)) if checkpoint is None else Path(checkpoint)
    state = read_state_dict(path)  # before the build: that takes seconds
    model = build_sam2(model_cfg or preset.model_cfg)
    load_strictly(model, state, path)
    return model.eval().requires_grad_(False)


def sam2_source(preset: SamPreset, model_cfg: str | None = None) -> Source:
    """Where the checkpoint of a preset, or of another configuration, comes from.

    Raises:
        ValueError: unknown configuration, or one without a published checkpoint.
    """
    if model_cfg is None and preset.source is not None:
        return preset.source
    return published_sam2(str(model_cfg or preset.model_cfg))


def published_sam2(model_cfg: str) -> Source:
    """The checkpoint that the sam2 package names for one of its configurations.

    Raises:
        ValueError: no such configuration, or one of the user's own.
    """
    from sam2.build_sam import HF_MODEL_ID_TO_FILENAMES

    from .sam2_networks import find_config

    name = find_config(model_cfg).name
    for repo_id, (config, filename) in HF_MODEL_ID_TO_FILENAMES.items():
        if Path(config).name == name:
            return Source(repo_id=repo_id, filenames=(filename,))
    raise ValueError(
        f"no checkpoint is published for the SAM 2 configuration {model_cfg!r}: add --checkpoint"
    )
