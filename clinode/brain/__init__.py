"""Systems we wrote down: neurons, synapses, circuits and networks of the brain."""

from .bold import BalloonWindkessel, record_bold, with_bold
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
from .lead_field import LeadFieldReadout
from .memory import (
    GradedHopfield,
    Hopfield,
    ModernHopfield,
    Recall,
    critical_load,
    one_step_error,
    recalled_overlap,
)
from .networks import (
    EpileptorNetwork,
    JansenRitNetwork,
    KuramotoNetwork,
    Network,
    ReducedWongWangNetwork,
    SaturatingRateNetwork,
    StuartLandauNetwork,
    WilsonCowanNetwork,
    order_parameter,
)
from .plasticity import (
    BennaFusi,
    CascadeSynapse,
    SerialSynapse,
    first_passage_lifetime,
    memory_envelope,
    optimal_depth,
    simulate_memory,
)
from .poisson import diffusion_approximation, poisson_input
from .populations import JansenRit, SNICOscillator, ThetaPopulation, WilsonCowan
from .postsynaptic import conductance_input, current_input
from .potentials import ghk_current, goldman, nernst
from .seizure import Epileptor, Wendling
from .sensorimotor import TwoLinkArm
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
    "BalloonWindkessel",
    "BennaFusi",
    "CascadeSynapse",
    "Connectome",
    "DualExponentialSynapse",
    "Epileptor",
    "EpileptorNetwork",
    "ExponentialSynapse",
    "FitzHughNagumo",
    "FluctuatingConductance",
    "GateRates",
    "GradedHopfield",
    "HodgkinHuxley",
    "Hopfield",
    "Izhikevich",
    "JansenRit",
    "JansenRitNetwork",
    "KuramotoNetwork",
    "LateralInhibition",
    "LateralInhibitionField",
    "LeadFieldReadout",
    "ModernHopfield",
    "Moments",
    "MorrisLecar",
    "NMDASynapse",
    "Network",
    "NoisyLIF",
    "NoisyWongWang",
    "Recall",
    "ReducedWongWangNetwork",
    "RingAttractor",
    "SNICOscillator",
    "SaturatingRateNetwork",
    "SerialSynapse",
    "ShortTermPlasticity",
    "StuartLandauNetwork",
    "Theta",
    "ThetaPopulation",
    "TwoLinkArm",
    "Wendling",
    "WilsonCowan",
    "WilsonCowanNetwork",
    "WinnerTakeAll",
    "WongWang",
    "conductance_input",
    "critical_load",
    "current_input",
    "diffusion_approximation",
    "first_passage_lifetime",
    "ghk_current",
    "goldman",
    "lif_rate",
    "memory_envelope",
    "nernst",
    "one_step_error",
    "optimal_depth",
    "order_parameter",
    "poisson_input",
    "read_connectome",
    "recalled_overlap",
    "record_bold",
    "siegert_rate",
    "simulate_connectome",
    "simulate_memory",
    "spike_rate",
    "with_bold",
]
