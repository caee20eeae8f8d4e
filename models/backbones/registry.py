"""The named backbones, a row each: a network, and exactly how its published LoftUp saw it.

Nothing heavy is imported here, so programs can list them at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..presets import PRESETS


@dataclass(frozen=True, kw_only=True, slots=True)
class BackboneRow:
    """One backbone.

    Attributes:
        meaning: what it is, for tables and help.
        network: what it is built from, see `models.backbones.build`: a preset or timm:NAME.
        attention: variant of CLIP's last block; "" for networks other than CLIP.
        positions: how position embeddings are brought to another grid: "timm" resizes to its size,
            bicubic with antialiasing; "offset" as `models.backbones.positions` says.
        layer: of a ViT: "norm", the last layer's normalised tokens, or "qk", the sum of the last
            block's queries and keys.
        features: kind of features it gives, a LoftUp fits one kind; "" for one of its own name.
    """

    meaning: str
    network: str
    attention: str = ""
    positions: str = "timm"
    layer: str = "norm"
    features: str = ""


# All see images normalised with ImageNet's statistics, whatever the networks were trained with:
# so did the featurizers of every published LoftUp. torch.hub's DINOv2 resizes its positions by
# offset scale factors without registers, and to the grid with antialiasing with them.
BACKBONES: dict[str, BackboneRow] = {
    "dinov2_vits14": BackboneRow(
        meaning="DINOv2 ViT-S/14",
        network="timm:vit_small_patch14_dinov2.lvd142m",
        positions="offset",
    ),
    "dinov2_vits14_reg": BackboneRow(
        meaning="DINOv2 ViT-S/14 with registers",
        network="timm:vit_small_patch14_reg4_dinov2.lvd142m",
    ),
    "dinov2_vitb14": BackboneRow(
        meaning="DINOv2 ViT-B/14",
        network="timm:vit_base_patch14_dinov2.lvd142m",
        positions="offset",
    ),
    "dinov2_vitb14_reg": BackboneRow(
        meaning="DINOv2 ViT-B/14 with registers",
        network="timm:vit_base_patch14_reg4_dinov2.lvd142m",
    ),
    "siglip_vitb16": BackboneRow(
        meaning="SigLIP ViT-B/16, its trunk's patch tokens",
        network="timm:vit_base_patch16_siglip_224.webli",
    ),
    "siglip2_vitb16": BackboneRow(
        meaning="SigLIP 2 ViT-B/16, its trunk's patch tokens",
        network="timm:vit_base_patch16_siglip_224.v2_webli",
    ),
    "maskclip_vitb16": BackboneRow(
        meaning="OpenAI's CLIP ViT-B/16, the values of its last block as in MaskCLIP",
        network="vit-b16",
        features="clip-vit-b16",
        attention="maskclip",
    ),
    # No LoftUp was published for these: proxies of ProxyCLIP and CorrCLIP.
    "dino_vitb8": BackboneRow(
        meaning="DINO ViT-B/8",
        network="timm:vit_base_patch8_224.dino",
        positions="offset",
    ),
    "dino_vitb8_qk": BackboneRow(
        meaning="DINO ViT-B/8, queries + keys of its last block",
        network="timm:vit_base_patch8_224.dino",
        positions="offset",
        layer="qk",
    ),
    "dinov3_vits16": BackboneRow(
        meaning="DINOv3 ViT-S/16", network="timm:vit_small_patch16_dinov3.lvd1689m"
    ),
    "dinov3_vitb16": BackboneRow(
        meaning="DINOv3 ViT-B/16", network="timm:vit_base_patch16_dinov3.lvd1689m"
    ),
}

GENERAL = ("timm:NAME[@STRIDE]", "open_clip:NAME", "open_clip:FOLDER")


def backbone_names() -> tuple[str, ...]:
    """What `build_backbone` takes: presets, the rows above, and the general forms."""
    return (*PRESETS, *BACKBONES, *GENERAL)
