"""Connectomes: which region influences which, how strongly, over what distance."""

from .connectome import Connectome, Finding
from .reading import read_connectome
from .simulated import simulate_connectome

__all__ = ["Connectome", "Finding", "read_connectome", "simulate_connectome"]
