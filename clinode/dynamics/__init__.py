"""What a system does: simulate it, find its rest and cycles, follow them, and what tips it."""

from .basins import Basins, basins
from .branch import Branch, SpecialPoint
from .compiled import CompileWarning
from .continuation import continue_equilibria
from .curves import BifurcationCurve, continue_curve
from .cycle_branches import continue_cycles
from .cycles import LimitCycle, find_limit_cycle
from .equilibria import Equilibria, Equilibrium, find_equilibria, find_equilibria_each
from .escape import EscapeTimes, escape_times
from .field import parameter_quantity
from .identify import Identification, identify
from .linearize import linearize
from .onset import Onset, firing_onset
from .parametrize import ConductanceForm, DalesLaw, LowRank, SparsityMask, Stable
from .phase import PhaseResponse, phase_response
from .response import Impedance, impedance, zap
from .separatrix import Separatrix, Shock, minimal_fatal_shock, separatrix
from .simulate import METHODS, Trajectory, simulate
from .stationary import (
    Moments,
    NetworkDrift,
    StationaryFit,
    fit_stationary,
    stationary_covariance,
    stationary_moments,
)
from .subspace import (
    LinearFit,
    fit_autoregression,
    identify_subspace,
)
from .warning import EarlyWarning, Tipping, early_warning, recovery_rate, scaling_exponent

__all__ = [
    "METHODS",
    "Basins",
    "BifurcationCurve",
    "Branch",
    "CompileWarning",
    "ConductanceForm",
    "DalesLaw",
    "EarlyWarning",
    "Equilibria",
    "Equilibrium",
    "EscapeTimes",
    "Identification",
    "Impedance",
    "LimitCycle",
    "LinearFit",
    "LowRank",
    "Moments",
    "NetworkDrift",
    "Onset",
    "PhaseResponse",
    "Separatrix",
    "Shock",
    "SparsityMask",
    "SpecialPoint",
    "Stable",
    "StationaryFit",
    "Tipping",
    "Trajectory",
    "basins",
    "continue_curve",
    "continue_cycles",
    "continue_equilibria",
    "early_warning",
    "escape_times",
    "find_equilibria",
    "find_equilibria_each",
    "find_limit_cycle",
    "firing_onset",
    "fit_autoregression",
    "fit_stationary",
    "identify",
    "identify_subspace",
    "impedance",
    "linearize",
    "minimal_fatal_shock",
    "parameter_quantity",
    "phase_response",
    "recovery_rate",
    "scaling_exponent",
    "separatrix",
    "simulate",
    "stationary_covariance",
    "stationary_moments",
    "zap",
]
