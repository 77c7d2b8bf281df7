"""Systems we wrote down: neurons, synapses, circuits and networks of the brain."""

from .conductance import FitzHughNagumo, GateRates, HodgkinHuxley, MorrisLecar
from .firing_rate import lif_rate, siegert_rate
from .integrate_and_fire import LIF, AdaptiveLinear, AdEx, Izhikevich, NoisyLIF, Theta
from .poisson import diffusion_approximation, poisson_input
from .potentials import ghk_current, goldman, nernst
from .synapses import (
    AlphaSynapse,
    DualExponentialSynapse,
    ExponentialSynapse,
    FluctuatingConductance,
    Moments,
    NMDASynapse,
    ShortTermPlasticity,
)

__all__ = [
    "LIF",
    "AdEx",
    "AdaptiveLinear",
    "AlphaSynapse",
    "DualExponentialSynapse",
    "ExponentialSynapse",
    "FitzHughNagumo",
    "FluctuatingConductance",
    "GateRates",
    "HodgkinHuxley",
    "Izhikevich",
    "Moments",
    "MorrisLecar",
    "NMDASynapse",
    "NoisyLIF",
    "ShortTermPlasticity",
    "Theta",
    "diffusion_approximation",
    "ghk_current",
    "goldman",
    "lif_rate",
    "nernst",
    "poisson_input",
    "siegert_rate",
]
