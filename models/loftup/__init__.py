"""LoftUp (Huang et al., 2025, arXiv:2504.14032): the network, and its fast inference."""

from .network import LoftUp as LoftUp
