"""The trained models by name: what they are and where their weights come from. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .protocols import Protocol

MODELS = Path(__file__).resolve().parent


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where a checkpoint lies: in a Hugging Face repository, at an address, or with the code."""

    repo_id: str | None = None
    filenames: tuple[str, ...] = ()  # the first that exists is taken
    url: str | None = None  # http(s)
    path: Path | None = None

    def __str__(self) -> str:
        if self.path or self.url:
            return str(self.path or self.url)
        return f"{self.repo_id}/{self.filenames[0]}"


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipPreset:
    """A CLIP of open_clip's classes."""

    architecture: str | Path  # open_clip model name, or a folder with open_clip_config.json
    features: str  # kind of dense features it gives; a LoftUp fits one kind
    source: Source


@dataclass(frozen=True, kw_only=True, slots=True)
class LoftUpPreset:
    """A LoftUp trained for one kind of features."""

    features: str  # kind of features, a name of models.backbones.registry where it has a row
    dim: int  # channels
    patch: int  # patch side of the backbone it was trained with, pixels
    source: Source


@dataclass(frozen=True, kw_only=True, slots=True)
class AutomaticMasks:
    """What SAM 2's automatic masks are made and kept by; the defaults are the sam2 package's."""

    points_per_side: int = 32  # of the grid of clicks
    predicted_iou: float = 0.8  # drops masks that SAM trusts less
    stability: float = 0.95  # drops masks that change more when their threshold moves
    multimask: bool = True  # three masks a click instead of one

    def __post_init__(self) -> None:
        if self.points_per_side < 1:
            raise ValueError(f"points_per_side must be at least 1, got {self.points_per_side}")


GRID_PROMPTS = AutomaticMasks().points_per_side ** 2  # SAM 2's own: what guided prompts save on


@dataclass(frozen=True, kw_only=True, slots=True)
class SamPreset:
    """A SAM 2: configuration (name in the sam2 package, or a YAML file) and checkpoint."""

    model_cfg: str | Path
    source: Source | None  # None: the checkpoint that sam2 names for this configuration
    automatic: AutomaticMasks = AutomaticMasks()
    # Those that make regions, as CorrCLIP's paper has them.
    regions: AutomaticMasks = AutomaticMasks(
        points_per_side=8, predicted_iou=0.4, stability=0.4, multimask=False
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """The models of a whole pipeline, and the scoring protocol that suits them."""

    name: str
    clip: ClipPreset
    loftup: str | Path  # key of LOFTUPS, or a checkpoint
    sam: SamPreset
    protocol: str | Protocol  # key of models.protocols.PROTOCOLS, or one of its own
    loftup_share: float  # weight of LoftUp's scores against bilinear ones, 1 is LoftUp alone
    text_space: str  # how LoftUp's output is compared with text: "restored" or "channel_norm"
    # Method -> its second network, see `models.proxies`; "" is that of methods not named.
    proxies: Mapping[str, str] = field(default_factory=lambda: {"": "dino_vitb8"})
    knows: str = ""  # the only pictures that its results mean something for; "" is any

    def proxy_of(self, method: str) -> str:
        """The second network of a dense method."""
        return self.proxies.get(method, self.proxies[""])


def _hub_loftup(name: str, features: str, dim: int, patch: int) -> LoftUpPreset:
    source = Source(repo_id=f"haiwen/{name}", filenames=("pytorch_model.bin",))
    return LoftUpPreset(features=features, dim=dim, patch=patch, source=source)


LOFTUPS: dict[str, LoftUpPreset] = {
    "loftup_clip": _hub_loftup("loftup-clip", "clip-vit-b16", 512, 16),
    "loftup_dinov2s": _hub_loftup("loftup-dinov2s", "dinov2_vits14", 384, 14),
    "loftup_dinov2s_reg": _hub_loftup("loftup-dinov2s_reg", "dinov2_vits14_reg", 384, 14),
    "loftup_dinov2b": _hub_loftup("loftup-dinov2b", "dinov2_vitb14", 768, 14),
    "loftup_dinov2b_reg": _hub_loftup("loftup-dinov2b_reg", "dinov2_vitb14_reg", 768, 14),
    "loftup_siglip": _hub_loftup("loftup-siglip", "siglip_vitb16", 768, 16),
    "loftup_siglip2": _hub_loftup("loftup-siglip2", "siglip2_vitb16", 768, 16),
    "loftup_tiny": LoftUpPreset(
        features="tiny-clip",
        dim=128,
        patch=16,
        source=Source(path=MODELS / "tiny" / "loftup.safetensors"),
    ),
}

_ANYUP = "https://github.com/wimmerth/anyup/releases/download"
# Each fits the features of any backbone.
ANYUPS: dict[str, Source] = {
    "anyup_multi_backbone": Source(url=f"{_ANYUP}/checkpoint_v2/anyup_multi_backbone.pth"),
    "anyup_paper": Source(url=f"{_ANYUP}/checkpoint/anyup_paper.pth"),
}
DEFAULT_ANYUP = "anyup_multi_backbone"  # trained on CLIP's features among others

_NAF = "https://github.com/valeoai/NAF/releases/download/model"
NAFS: dict[str, Source] = {"naf_release": Source(url=f"{_NAF}/naf_release.pth")}
DEFAULT_NAF = "naf_release"  # fits the features of any backbone

PRESETS: dict[str, Preset] = {
    "vit-b16": Preset(
        name="vit-b16",
        clip=ClipPreset(
            architecture="ViT-B-16-quickgelu",  # OpenAI's weights were trained with QuickGELU
            features="clip-vit-b16",
            source=Source(
                repo_id="timm/vit_base_patch16_clip_224.openai",
                filenames=("open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
            ),
        ),
        loftup="loftup_clip",
        sam=SamPreset(model_cfg="sam2_hiera_l.yaml", source=None),
        protocol="open",
        loftup_share=1.0,
        text_space="restored",
        proxies={"": "dino_vitb8", "corr": "dino_vitb8_qk"},  # the papers'
    ),
    "tiny": Preset(
        name="tiny",
        clip=ClipPreset(
            architecture=MODELS / "tiny" / "clip",
            features="tiny-clip",
            source=Source(path=MODELS / "tiny" / "clip" / "open_clip_model.safetensors"),
        ),
        loftup="loftup_tiny",
        sam=SamPreset(
            model_cfg=MODELS / "tiny" / "sam2_tiny.yaml",
            source=Source(path=MODELS / "tiny" / "sam2.safetensors"),
            # Its logits are too soft for the sam2 package's thresholds: no mask would be left.
            automatic=AutomaticMasks(points_per_side=16, predicted_iou=0.5, stability=1e-4),
            regions=AutomaticMasks(points_per_side=8, predicted_iou=0.5, stability=1e-4),
        ),
        protocol="tiny",
        loftup_share=0.5,  # measured best, see benchmarks/README.md
        text_space="restored",
        proxies={"": "sam2"},
        knows="drawn scenes only, no photographs",
    ),
}


def get_preset(name: str) -> Preset:
    """The preset called `name`.

    Raises:
        ValueError: no such preset; the message lists those there are.
    """
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}; valid: {', '.join(PRESETS)}")
    return PRESETS[name]


def loftup_for(features: str, name: str) -> LoftUpPreset:
    """The LoftUp called `name`, checked to fit features of the kind `features`.

    Raises:
        ValueError: unknown name, or trained for other features; the message lists those that fit.
    """
    fitting = [key for key, preset in LOFTUPS.items() if preset.features == features]
    if name in fitting:
        return LOFTUPS[name]
    valid = ", ".join(fitting) or "none, train one with scripts/train_loftup.py"
    if name not in LOFTUPS:
        raise ValueError(f"unknown LoftUp {name!r}; for {features} features: {valid}")
    raise ValueError(
        f"{name} upsamples {LOFTUPS[name].features} features, not {features}; "
        f"for {features}: {valid}"
    )
