"""A network of rate units, learned from a recording of regions under stimulation."""

from .learn import LearnedNetwork, NetworkConfig, Phase, learn_network
from .rate_network import RateNetwork
from .stored import load_network, save_network

__all__ = [
    "LearnedNetwork",
    "NetworkConfig",
    "Phase",
    "RateNetwork",
    "learn_network",
    "load_network",
    "save_network",
]
