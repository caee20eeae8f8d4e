"""NAF (Chambon et al., 2025, arXiv:2511.18452): the network, and its memory-lean encoders."""

from .network import NAF as NAF
