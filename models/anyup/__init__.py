"""AnyUp (Wimmer et al., 2025, arXiv:2510.12764): the network, and its memory-lean encoders."""

from .network import AnyUp as AnyUp
