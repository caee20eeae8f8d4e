"""Everything that brings features from patches to pixels, behind one interface.

`base` is the interface, `registry` the table of those there are. Classes are imported when they are
asked for: the table alone needs no torch.
"""

from .registry import UPSAMPLERS as UPSAMPLERS
from .registry import load_upsampler as load_upsampler

_BASE = ("LinearUpsampler", "Resize", "Upsampler")


def __getattr__(name: str) -> object:
    if name in _BASE:
        from . import base

        return getattr(base, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
