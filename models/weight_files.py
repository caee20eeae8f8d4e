"""Files of weights: the only place that downloads anything or opens checkpoints of others.

A checkpoint is a local file, a file of a Hugging Face repository, looked up in the hub's ordinary
cache first, or one at an address, kept in HF_HOME/downloads. HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE
and HF_TOKEN work as everywhere. Files hold tensors only: pickled code is refused, and nothing is
ever run from a hub.
"""

from __future__ import annotations

import http.client
import logging
import os
import re
import shutil
import urllib.parse
import urllib.request
from pathlib import Path

import torch
from torch import Tensor

from .device import is_out_of_memory
from .presets import PRESETS, Source
from .torchscript import is_torchscript, read_torchscript

logger = logging.getLogger(__name__)

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

    assert source.repo_id is not None
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
        "network, or copy the cache from a machine that has it (--preset tiny needs no download, "
        f"but knows {PRESETS['tiny'].knows})"
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
    """Read a dict of tensors from a safetensors file, a PyTorch one or a TorchScript archive.

    No code in any of them is run. The wrappers {"model": …} (SAM 2) and {"state_dict": …}
    (training checkpoints) are opened.

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
        elif is_torchscript(path):
            state = read_torchscript(path)
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
    if code:
        return (
            f"checkpoint {path} holds pickled Python code ({code[1]}) and is refused: give a file "
            "of tensors alone, a state dict (.pt, .bin) or .safetensors"
        )
    # torch's advice on everything else is to load it unsafely: not repeated.
    reason = "no PyTorch file" if "weights_only" in text else _first_line(error)
    return (
        f"checkpoint {path} cannot be read ({size}; {reason}): "
        "truncated or not a weights file, delete it and download it again"
    )
