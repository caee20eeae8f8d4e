"""Weights out of TorchScript archives, such as OpenAI's own `ViT-B-16.pt`; their code is not run.

An archive is a zip file: code/ with the program, data.pkl with the module's attributes as a
pickle, data/ with the bytes of its tensors. Only the last two are read, and the pickle may make
nothing but tensors and nested attributes.
"""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch._utils import _rebuild_tensor_v2


class _Attributes:
    """Stands for every class that an archive defines: its attributes, and no behaviour."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


class _Unpickler(pickle.Unpickler):
    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{folder}/data.pkl")))
        self._archive, self._folder = archive, folder

    def find_class(self, module_name: str, global_name: str) -> Any:
        # A pickle may set attributes of whatever it is given here: nothing that others use.
        if module_name.split(".")[0] == "__torch__":
            return type("Attributes", (_Attributes,), {})
        if (module_name, global_name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda *arguments: _rebuild_tensor_v2(*arguments)
        if module_name == "torch.jit._pickle" and global_name.startswith("build_"):
            return lambda values: values  # lists with types
        if (module_name, global_name) == ("torch.jit._pickle", "restore_type_tag"):
            return lambda values, _: values  # other lists and dicts, and their type
        if (module_name, global_name) == ("collections", "OrderedDict"):
            return dict
        if module_name == "torch" and global_name.endswith("Storage"):
            return getattr(torch, global_name).dtype
        raise pickle.UnpicklingError(f"GLOBAL {module_name}.{global_name} is no tensor")

    def persistent_load(self, pid: Any) -> torch.storage.TypedStorage:
        _, dtype, key, _, count = pid  # "storage", its type, name, device, number of elements
        data = bytearray(self._archive.read(f"{self._folder}/data/{key}"))
        if len(data) < count * dtype.itemsize:
            raise pickle.UnpicklingError(f"data/{key} is shorter than its tensor")
        # A buffer has a byte at least, and unlike torch's own storages one cannot grow.
        storage = torch.frombuffer(data or bytearray(1), dtype=torch.uint8).untyped_storage()
        return torch.storage.TypedStorage(wrap_storage=storage, dtype=dtype, _internal=True)


def is_torchscript(path: str | os.PathLike) -> bool:
    """Whether a file is such an archive."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(path: str | os.PathLike) -> dict[str, Tensor]:
    """The parameters, buffers and other tensors of a scripted or traced module, by their names.

    Args:
        path: of the archive, made by `torch.jit.save`; its tensors may be of any device.

    Raises:
        pickle.UnpicklingError, zipfile.BadZipFile, KeyError: damaged, or more than tensors.
    """
    with zipfile.ZipFile(path) as archive:
        found = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        folder = found[0].removesuffix("/data.pkl")
        module = _Unpickler(archive, folder).load()
    return dict(_tensors(module, ""))


def _tensors(module: _Attributes, prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            yield prefix + name, value
        elif isinstance(value, _Attributes):
            yield from _tensors(value, f"{prefix}{name}.")
