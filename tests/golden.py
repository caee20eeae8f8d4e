"""Reference inputs and outputs (`tests/data/golden`), and the small networks that hold them."""

from pathlib import Path

import open_clip
from safetensors.torch import load_file
from torch import Tensor

GOLDEN = Path(__file__).parent / "data" / "golden"


def load(name: str) -> dict[str, Tensor]:
    """All tensors of one golden file, by name."""
    return load_file(GOLDEN / f"{name}.safetensors")


def weights(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The `weights.*` entries as a state dict."""
    prefix = "weights."
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def tiny_clip(
    state: dict[str, Tensor] | None = None, embed: int = 48, text_width: int = 64, **vision: object
) -> open_clip.CLIP:
    """The CLIP of `sclip.safetensors`; the others override entries of its configuration."""
    config = {"image_size": 64, "layers": 3, "width": 128, "head_width": 64, "patch_size": 16}
    clip = open_clip.CLIP(
        embed_dim=embed,
        vision_cfg={**config, **vision},
        text_cfg={
            "context_length": 12,
            "vocab_size": 64,
            "width": text_width,
            "heads": 1,
            "layers": 1,
        },
        quick_gelu=True,
    )
    if state is not None:
        clip.load_state_dict(state, strict=True)
    return clip.eval()


def max_error(actual: Tensor, expected: Tensor) -> float:
    """Largest absolute difference; shapes must agree."""
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    return (actual - expected).abs().max().item()
