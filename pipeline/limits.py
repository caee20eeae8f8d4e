"""What must be said of a result: the models of some presets know a small world only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.presets import Preset

from .scene import is_scene

if TYPE_CHECKING:
    import numpy as np


def limits_of(preset: Preset, image: np.ndarray | None = None) -> str:
    """One line that belongs to every result of these models; "" if there is nothing to say.

    Args:
        preset: the models.
        image: (H, W, 3) uint8 RGB; the bundled scene is of every preset's world. None is any.
    """
    if not preset.knows or (image is not None and is_scene(image)):
        return ""
    return (
        f"{preset.name} knows {preset.knows}: what it finds in other pictures means nothing "
        "(for photographs: vit-b16)"
    )
