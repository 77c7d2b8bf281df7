"""How long a synapse remembers: metaplastic states, chains of variables, bounds."""

from .benna_fusi import BennaFusi
from .envelope import memory_envelope
from .first_passage import FirstPassage, first_passage_lifetime, simulate_memory
from .markov import CascadeSynapse, MarkovSynapse, OptimalDepth, SerialSynapse, optimal_depth

__all__ = [
    "BennaFusi",
    "CascadeSynapse",
    "FirstPassage",
    "MarkovSynapse",
    "OptimalDepth",
    "SerialSynapse",
    "first_passage_lifetime",
    "memory_envelope",
    "optimal_depth",
    "simulate_memory",
]
