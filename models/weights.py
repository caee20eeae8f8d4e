"""Find, check and load weights: the only place that downloads or unpickles anything.

A checkpoint is a local file, a file of a Hugging Face repository, looked up in the hub's ordinary
cache first, or one at an address, kept in HF_HOME/downloads. HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE
and HF_TOKEN work as everywhere. Files hold tensors only: pickled code is refused, and nothing is
ever run from a hub.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import re
import shutil
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from .anyup import AnyUp
from .loftup import LoftUp
from .memory import is_out_of_memory
from .presets import ANYUPS, DEFAULT_ANYUP, LOFTUPS, ClipPreset, SamPreset, Source

logger = logging.getLogger(__name__)

Tokenizer = Callable[[list[str]], Tensor]  # texts -> (N, context) int64

_HUB_TIMEOUT = 5.0  # seconds per address of the hub, unless HF_HUB_ETAG_TIMEOUT says otherwise


class WeightsNotFoundError(FileNotFoundError):
    """A checkpoint is neither on this machine nor could be fetched."""


class WeightsError(ValueError):
    """A checkpoint is damaged, unsafe, or made for another network."""


def resolve(source: Source) -> Path:
    """The local file of `source`, downloaded if need be.

    Raises:
        WeightsNotFoundError: it is not here and cannot be fetched; the message says what to do.
    """
    if source.path is not None:
        if not source.path.is_file():
            raise WeightsNotFoundError(
                f"weights missing: {source.path} is part of this repository; restore it with "
                f"`git checkout -- {source.path.name}` in {source.path.parent}"
            )
        return source.path
    if source.url is not None:
        return _download(source.url)
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError

    for filename in source.filenames:
        cached = try_to_load_from_cache(source.repo_id, filename)
        if isinstance(cached, str):
            return Path(cached)
    why = "HF_HUB_OFFLINE is set"
    if not constants.HF_HUB_OFFLINE:
        for filename in source.filenames:
            try:
                _ask_hub(source.repo_id, filename)
                logger.info("downloading %s/%s", source.repo_id, filename)
                return Path(hf_hub_download(source.repo_id, filename))
            except EntryNotFoundError as error:  # the repository holds the other format
                why = _first_line(error)
            except Exception as error:  # the hub's own errors: HTTP, gated, moved, disk full
                why = _first_line(error)
                break
    raise WeightsNotFoundError(
        f"weights missing: {source} is not in the Hugging Face cache ({constants.HF_HUB_CACHE}) "
        f"and could not be downloaded ({why}); run `python scripts/download_weights.py` with "
        "network, copy the cache from a machine that has it, or use --preset tiny"
    )


def _download(url: str) -> Path:
    """The file at an address, from the cache if it was fetched before."""
    from huggingface_hub import constants

    # The whole address, as one name: releases call different files by one last part.
    path = Path(constants.HF_HOME, "downloads", urllib.parse.quote(url, safe=""))
    if path.is_file():
        return path
    why = "HF_HUB_OFFLINE is set"
    if not constants.HF_HUB_OFFLINE:
        logger.info("downloading %s", url)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with (
                urllib.request.urlopen(url, timeout=_HUB_TIMEOUT) as answer,
                part.open("wb") as out,
            ):
                shutil.copyfileobj(answer, out)
                length = answer.headers.get("Content-Length")
            if length is not None and part.stat().st_size != int(length):
                raise OSError(f"only {part.stat().st_size:,} of {int(length):,} bytes came")
            part.replace(path)
            return path
        except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
            why = _first_line(error)
        finally:
            part.unlink(missing_ok=True)
    raise WeightsNotFoundError(
        f"weights missing: {url} could not be downloaded ({why}); fetch it with a machine that has "
        f"network and give the file's path, or put it at {path}"
    )


def _ask_hub(repo_id: str, filename: str) -> None:
    """One request for the file's metadata, so that without network the error comes at once.

    `hf_hub_download` alone would retry for half a minute first, and log every attempt.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    given = "HF_HUB_ETAG_TIMEOUT" in os.environ
    timeout = constants.HF_HUB_ETAG_TIMEOUT if given else _HUB_TIMEOUT
    get_hf_file_metadata(hf_hub_url(repo_id, filename), timeout=timeout)


def _first_line(error: Exception | None) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def read_state_dict(path: str | os.PathLike) -> dict[str, Tensor]:
    """Read a dict of tensors from a safetensors file or a PyTorch one.

    The wrappers {"model": …} (SAM 2) and {"state_dict": …} (training checkpoints) are opened.

    Raises:
        WeightsNotFoundError: no such file.
        WeightsError: damaged, or holding more than tensors.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise WeightsNotFoundError(f"checkpoint {path} {what}: give the path of a weights file")
    if path.stat().st_size == 0:
        raise WeightsError(f"checkpoint {path} is empty (0 bytes): delete it and download it again")
    with path.open("rb") as file:  # also: a missing permission is said plainly
        start = file.read(512)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(str(path))
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle, safetensors and EOF errors share no base
        if is_out_of_memory(error):
            raise
        raise WeightsError(_why_unreadable(path, start, error)) from error
    for wrapper in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"checkpoint {path} is not a dict of tensors: give a state dict")
    return state


def _why_unreadable(path: Path, start: bytes, error: Exception) -> str:
    """One line; `start` is how the file begins."""
    size = f"{path.stat().st_size:,} bytes"
    if start.startswith(b"version https://git-lfs"):
        return (
            f"checkpoint {path} is not a weights file but a Git LFS pointer to one ({size}): run "
            "`git lfs pull` in its repository, or download the file itself"
        )
    if re.match(rb"(\xef\xbb\xbf)?\s*<[!?a-zA-Z]", start):
        return (
            f"checkpoint {path} is not a weights file but a web page ({size}): download the file "
            "itself (on Hugging Face its address has /resolve/, that of the page about it /blob/)"
        )
    text = str(error)
    code = re.search(r"GLOBAL (\S+)", text)  # torch's unpickler names what it refused
    if code or "TorchScript" in text:
        what = f"pickled Python code ({code[1]})" if code else "a TorchScript archive"
        return (
            f"checkpoint {path} holds {what} and is refused: give a file of tensors alone, "
            "a state dict (.pt, .bin) or .safetensors"
        )
    # torch's advice on everything else is to load it unsafely: not repeated.
    reason = "no PyTorch file" if "weights_only" in text else _first_line(error)
    return (
        f"checkpoint {path} cannot be read ({size}; {reason}): "
        "truncated or not a weights file, delete it and download it again"
    )


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
    # OpenAI's own dicts carry three numbers beside the tensors of the network.
    for name in ("input_resolution", "context_length", "vocab_size"):
        state.pop(name, None)
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
    clip.visual.image_mean = tuple(preprocess["mean"])
    clip.visual.image_std = tuple(preprocess["std"])
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
        raise WeightsError(f"checkpoint {path} is no LoftUp: it has no channelnorm.norm.weight")
    if preset is not None and len(norm) != preset.dim:
        raise WeightsError(
            f"checkpoint {path} upsamples {len(norm)} channels, {name_or_path} has {preset.dim}"
        )
    loftup = LoftUp(len(norm))
    load_strictly(loftup, state, path)
    return loftup.eval().requires_grad_(False)


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


def load_anyup(name_or_path: str | os.PathLike = DEFAULT_ANYUP) -> AnyUp:
    """AnyUp in eval mode on the CPU, from one of `models.presets.ANYUPS`, an address or a file.

    Raises:
        WeightsNotFoundError, WeightsError: see `resolve`, `read_state_dict`, `load_strictly`.
        ValueError: neither a known name nor an address nor an existing file.
    """
    if str(name_or_path).startswith(("http://", "https://")):
        path = resolve(Source(url=str(name_or_path)))
    else:
        path = _named_or_given(name_or_path, ANYUPS, "AnyUp", "path or address")
    state = read_state_dict(path)
    first = state.get("image_encoder.0.weight")
    if first is None:
        raise WeightsError(f"checkpoint {path} is no AnyUp: it has no image_encoder.0.weight")
    anyup = AnyUp(len(first))
    load_strictly(anyup, state, path)
    return anyup.eval().requires_grad_(False)


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
    from .sam2_masks import build_sam2

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

    from .sam2_masks import find_config

    name = find_config(model_cfg).name
    for repo_id, (config, filename) in HF_MODEL_ID_TO_FILENAMES.items():
        if Path(config).name == name:
            return Source(repo_id=repo_id, filenames=(filename,))
    raise ValueError(
        f"no checkpoint is published for the SAM 2 configuration {model_cfg!r}: add --checkpoint"
    )
