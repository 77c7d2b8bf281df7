"""What a system can be made to do: Gramians, controllability, energies, targets, stimuli."""

from .boundary import BoundaryControllability, boundary_controllability
from .controllability import Controllability, Mode, controllability
from .energy import Energy, control_energy
from .feedback import FeedbackSolution, FilterSolution, lqe, lqg, lqr
from .gramian import controllability_gramian, observability_gramian
from .limits import LimitCheck, StimulusLimits
from .nodal import NodalControllability, average_controllability, modal_controllability
from .nulls import Null, degree_preserving, geometry_preserving, strength_preserving
from .problem import ControlProblem, OutputCost, StateCost
from .reduction import BalancedReduction, HankelValues, balanced_reduction, hankel_singular_values
from .selection import (
    InputScores,
    InputSet,
    average_energy_scores,
    best_inputs,
    greedy_inputs,
    volumetric_scores,
)
from .single_node import SingleNodeGramians, single_node_gramians
from .steering import Steering, steer
from .stimulation import stimulate
from .stimulus import Stimulus
from .targets import TargetRanking, rank_targets
from .waveforms import BiphasicPulses, Free, Pulses, Sine, Waveform

__all__ = [
    "BalancedReduction",
    "BiphasicPulses",
    "BoundaryControllability",
    "ControlProblem",
    "Controllability",
    "Energy",
    "FeedbackSolution",
    "FilterSolution",
    "Free",
    "HankelValues",
    "InputScores",
    "InputSet",
    "LimitCheck",
    "Mode",
    "NodalControllability",
    "Null",
    "OutputCost",
    "Pulses",
    "Sine",
    "SingleNodeGramians",
    "StateCost",
    "Steering",
    "Stimulus",
    "StimulusLimits",
    "TargetRanking",
    "Waveform",
    "average_controllability",
    "average_energy_scores",
    "balanced_reduction",
    "best_inputs",
    "boundary_controllability",
    "control_energy",
    "controllability",
    "controllability_gramian",
    "degree_preserving",
    "geometry_preserving",
    "greedy_inputs",
    "hankel_singular_values",
    "lqe",
    "lqg",
    "lqr",
    "modal_controllability",
    "observability_gramian",
    "rank_targets",
    "single_node_gramians",
    "steer",
    "stimulate",
    "strength_preserving",
    "volumetric_scores",
]
