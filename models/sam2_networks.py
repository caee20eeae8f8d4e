"""SAM 2's networks as the sam2 package builds them, from its configurations or a user's own."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base


def _package_configs() -> dict[str, Path]:
    """File name → file; the package also has copies of SAM 2.0's at its top level."""
    from importlib import resources

    folder = Path(str(resources.files("sam2"))) / "configs"
    files = [*folder.glob("sam2/*.yaml"), *folder.glob("sam2.1/*.yaml")]
    return {file.name: file for file in files}


def find_config(config: str | Path) -> Path:
    """The YAML file of a configuration of the sam2 package, or of the user's own.

    Raises:
        ValueError: there is none; the message lists the package's.
    """
    named = _package_configs()
    for name, file in named.items():
        inside = file.parent.name  # users of sam2 write names with or without its folders
        if str(config) in (name, f"{inside}/{name}", f"configs/{inside}/{name}"):
            return file
    if Path(config).is_file():
        return Path(config)
    raise ValueError(
        f"Unknown SAM 2 configuration {str(config)!r}: give a YAML file that exists, or one of "
        f"{', '.join(sorted(named))}."
    )


def _check_targets(node: Any, file: Path) -> None:
    """A configuration names the classes it builds: only sam2's may be built."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            _check_class(str(node["_target_"]), file)
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            _check_targets(child, file)


def _check_class(target: str, file: Path) -> None:
    """Where it is from decides, not its name: sam2.build_sam.os.system is not sam2's."""
    module, _, name = target.rpartition(".")
    found = None
    if module.startswith("sam2."):  # only then, as looking it up imports it
        with contextlib.suppress(ImportError):
            found = getattr(importlib.import_module(module), name, None)
    if not isinstance(found, type) or not found.__module__.startswith("sam2."):
        raise ValueError(f"{file}: _target_ {target!r} is not a class of the sam2 package.")


def build_sam2(config: str | Path, device: str | torch.device = "cpu") -> SAM2Base:
    """Build SAM 2 with random weights, in eval mode.

    Args:
        config: a configuration of the sam2 package (`sam2_hiera_l.yaml`,
            `configs/sam2.1/sam2.1_hiera_t.yaml`, `sam2.1_hiera_t.yaml`), or a YAML file of the
            same form.
        device: where the network goes.

    Raises:
        ValueError: no such configuration, or it is not one of SAM 2.
    """
    from hydra.errors import HydraException
    from hydra.utils import instantiate
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    file = find_config(config)
    # Not sam2.build_sam: it composes through Hydra's global state, which knows no other folder.
    try:
        settings = OmegaConf.to_container(OmegaConf.load(file), resolve=True)
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is no YAML file of SAM 2: {error}") from error
    model = settings.get("model") if isinstance(settings, Mapping) else None
    if not isinstance(model, Mapping) or "_target_" not in model:
        raise ValueError(f"{file} is no SAM 2 configuration: it has no `model` with a `_target_`.")
    _check_targets(settings, file)
    try:
        return instantiate(model).to(device).eval()
    except HydraException as error:
        raise ValueError(f"{file} does not describe a SAM 2: {error}") from error
