"""The networks of a preset: loaded when first needed, once, and known by their fingerprints."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .backbones.base import Backbone
from .backbones.build import build_backbone, clip_backbone
from .dense_methods import get_method
from .dense_methods.settings import SAM2
from .device import pick_device
from .presets import Preset, get_preset
from .proxies import Proxy, sam2_backbone
from .sam2_masks import Sam2Masks
from .text import TextEncoder
from .upsamplers.base import Upsampler
from .upsamplers.registry import UPSAMPLERS, Weights, check_width, load_network, upsampler_for
from .weights import load_clip, load_sam2

if TYPE_CHECKING:
    from .dense_config import DenseConfig


class Networks:
    """What a preset names, on one device; settings are `DenseConfig`'s and `PipelineConfig`'s.

    Args:
        preset: one of `models.presets.PRESETS`, or a preset of one's own.
        device: cuda, mps or cpu; None takes the best there is.
        weights: upsampler → name, file or address of its weights instead of the default; also of
            "proxy", a second network, and "proxy_upsampler".
        model_cfg, checkpoint: SAM 2's configuration and weights instead of the preset's.
        batch: windows encoded at once; bounds the memory, not the result.

    Raises:
        ValueError: an unknown preset or device, listing the valid ones.
    """

    def __init__(
        self,
        preset: str | Preset = "vit-b16",
        device: str | torch.device | None = None,
        *,
        weights: Mapping[str, Weights | None] | None = None,
        model_cfg: str | None = None,
        checkpoint: str | os.PathLike | None = None,
        batch: int = 8,
    ) -> None:
        self.preset = get_preset(preset) if isinstance(preset, str) else preset
        self.device, self.batch = pick_device(device), batch
        self._weights = {name: given for name, given in (weights or {}).items() if given}
        self._model_cfg, self._checkpoint = model_cfg, checkpoint
        self._loaded: dict[str, nn.Module] = {}
        self._made: dict[tuple, Any] = {}

    def load(self, config: DenseConfig, *, sam: bool = False) -> None:
        """Load what these settings need, so that what is missing is said before long work.

        Args:
            config: resolved settings.
            sam: SAM 2 as well.

        Raises:
            ValueError: weights that are for other features.
            WeightsNotFoundError, WeightsError: see `models.weight_files`.
        """
        for name in self.used(config, sam=sam):
            self.network(name)
        if config.uses_proxy:
            self.proxy(config)

    def used(self, config: DenseConfig, *, sam: bool = False) -> tuple[str, ...]:
        """The networks that these settings need, by name."""
        row = UPSAMPLERS.get(config.upsampler) if isinstance(config.upsampler, str) else None
        upsampler = (str(config.upsampler),) if row and row.network else ()
        sam = sam or config.use_sam or config.uses_sam2
        return ("clip", *upsampler, *(("sam2",) if sam else ()))

    def network(self, name: str) -> nn.Module:
        """The network "clip", "sam2" or of an upsampler, loaded when it is first asked for."""
        if name not in self._loaded:
            self._loaded[name] = self._load(name).to(self.device)
        return self._loaded[name]

    def _load(self, name: str) -> nn.Module:
        if name == "clip":
            clip, self._tokenizer = load_clip(self.preset.clip)
            return clip
        if name == "sam2":
            return load_sam2(
                self.preset.sam, model_cfg=self._model_cfg, checkpoint=self._checkpoint
            )
        network = load_network(name, self._weights.get(name), self.preset)
        weights = str(self._weights.get(name, ""))
        check_width(f"{name} {weights}", network, self.backbone().dim, self.preset.name)
        return network

    def backbone(self, config: DenseConfig | None = None) -> Backbone:
        """CLIP as the dense encoder of resolved settings, see `clip_backbone`; None: of SCLIP."""
        clip = self.network("clip")
        if config is None:
            return clip_backbone(self.preset.name, clip, self._tokenizer)
        proxy = self.proxy(config) if get_method(config.attention).proxy else None
        return self._once(
            ("backbone", config.statistics, *config.method().items()),
            lambda: clip_backbone(
                self.preset.name,
                clip,
                self._tokenizer,
                config,
                statistics=config.statistics,
                proxy=proxy,
            ),
        )

    def proxy(self, config: DenseConfig) -> Proxy:
        """The second network of resolved settings, with its upsampler."""
        name = str(config.proxy)
        backbone = self._once(("proxy", name), lambda: self._proxy_backbone(name))
        networks = {name: backbone.model}
        if config.proxy_scale == 1:
            return Proxy(backbone=backbone, networks=networks)
        given = self._weights.get("proxy_upsampler")
        upsampler, network = self._once(
            ("proxy_upsampler", name, config.proxy_upsampler),
            lambda: upsampler_for(config.proxy_upsampler, backbone, given, self.device),
        )
        if network is not None:
            networks[f"{name} {config.proxy_upsampler}"] = network
        return Proxy(
            backbone=backbone, scale=config.proxy_scale, upsampler=upsampler, networks=networks
        )

    def _proxy_backbone(self, name: str) -> Backbone:
        if name == SAM2:
            return sam2_backbone(self.network("sam2"))
        given = self._weights.get("proxy")
        checkpoint = Path(given) if given else None
        return build_backbone(name, checkpoint=checkpoint, device=self.device)

    def text(self, dtype: torch.dtype = torch.float32) -> TextEncoder:
        """Words to vectors; `dtype` is that of the transformer's products."""
        clip = self.network("clip")
        return self._once(("text", dtype), lambda: TextEncoder(clip, self._tokenizer, dtype=dtype))

    def forget_words(self) -> None:
        """Encode them anew when they are asked for again."""
        self._made = {key: made for key, made in self._made.items() if key[0] != "text"}

    def upsampler(self, config: DenseConfig, dtype: torch.dtype = torch.float32) -> Upsampler:
        """The upsampler of resolved settings."""
        name, space = config.upsampler, str(config.text_space)
        if not isinstance(name, str):
            return name  # type: ignore[return-value]  # the configuration has wrapped it
        row = UPSAMPLERS[name]
        network = self.network(name) if row.network else None
        return self._once((name, space, dtype), lambda: row.make(network, space, dtype))

    def sam(self, dtype: torch.dtype = torch.float32) -> Sam2Masks:
        """SAM 2 with the image that was set last."""
        return self._once(("sam", dtype), lambda: self.own_sam(dtype))

    def own_sam(self, dtype: torch.dtype = torch.float32) -> Sam2Masks:
        """SAM 2 with an image of its own."""
        model: Any = self.network("sam2")
        return Sam2Masks(model, dtype=dtype)

    def _once(self, key: tuple, make: Any) -> Any:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def fingerprints(self, config: DenseConfig, *, sam: bool = False) -> dict[str, str]:
        """SHA-256 of the weights these settings use, whatever files they came from."""
        found = {name: self.fingerprint(name) for name in self.used(config, sam=sam)}
        if config.uses_proxy:
            for name, network in self.proxy(config).networks.items():
                found[name] = self._once(("digest", name), functools.partial(digest, network))
        return found

    def fingerprint(self, name: str) -> str:
        """SHA-256 of one network's weights."""
        return self._once(("digest", name), lambda: digest(self.network(name)))


def digest(module: nn.Module) -> str:
    """SHA-256 of a network's weights, in order of their names."""
    found = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        found.update(name.encode())
        values = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
        found.update(values.numpy().tobytes())
    return found.hexdigest()[:16]
