"""Systems we wrote down: neurons, synapses, circuits and networks of the brain."""

from .circuits import (
    LateralInhibition,
    LateralInhibitionField,
    NoisyWongWang,
    RingAttractor,
    WinnerTakeAll,
    WongWang,
)
from .conductance import FitzHughNagumo, GateRates, HodgkinHuxley, MorrisLecar
from .connectome import Connectome, read_connectome, simulate_connectome
from .firing_rate import lif_rate, siegert_rate, spike_rate
from .integrate_and_fire import LIF, AdaptiveLinear, AdEx, Izhikevich, NoisyLIF, Theta
from .memory import (
    GradedHopfield,
    Hopfield,
    ModernHopfield,
    Recall,
    critical_load,
    one_step_error,
    recalled_overlap,
)
from .networks import WilsonCowanNetwork
from .poisson import diffusion_approximation, poisson_input
from .populations import JansenRit, SNICOscillator, ThetaPopulation, WilsonCowan
from .postsynaptic import conductance_input, current_input
from .potentials import ghk_current, goldman, nernst
from .seizure import Epileptor, Wendling
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
    "Connectome",
    "DualExponentialSynapse",
    "Epileptor",
    "ExponentialSynapse",
    "FitzHughNagumo",
    "FluctuatingConductance",
    "GateRates",
    "GradedHopfield",
    "HodgkinHuxley",
    "Hopfield",
    "Izhikevich",
    "JansenRit",
    "LateralInhibition",
    "LateralInhibitionField",
    "ModernHopfield",
    "Moments",
    "MorrisLecar",
    "NMDASynapse",
    "NoisyLIF",
    "NoisyWongWang",
    "Recall",
    "RingAttractor",
    "SNICOscillator",
    "ShortTermPlasticity",
    "Theta",
    "ThetaPopulation",
    "Wendling",
    "WilsonCowan",
    "WilsonCowanNetwork",
    "WinnerTakeAll",
    "WongWang",
    "conductance_input",
    "critical_load",
    "current_input",
    "diffusion_approximation",
    "ghk_current",
    "goldman",
    "lif_rate",
    "nernst",
    "one_step_error",
    "poisson_input",
    "read_connectome",
    "recalled_overlap",
    "siegert_rate",
    "simulate_connectome",
    "spike_rate",
]
