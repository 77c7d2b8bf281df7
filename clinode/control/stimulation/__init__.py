"""Stimuli: waveforms, limits, design in the nonlinear model, closed loops."""

from .adaptive import AdaptiveRun, adaptive_stimulation
from .limits import LimitCheck, StimulusLimits
from .nonlinear import OptimalInputs, optimize_inputs
from .policies import Level, Measurement, OnDemand, Oscillation, Proportional, RecedingHorizon
from .stimulation import stimulate
from .stimulus import Stimulus
from .trajectory_cost import StimulationCost, StimulationProblem
from .waveforms import BiphasicPulses, Free, Pulses, Sine, Waveform

__all__ = [
    "AdaptiveRun",
    "BiphasicPulses",
    "Free",
    "Level",
    "LimitCheck",
    "Measurement",
    "OnDemand",
    "OptimalInputs",
    "Oscillation",
    "Proportional",
    "Pulses",
    "RecedingHorizon",
    "Sine",
    "StimulationCost",
    "StimulationProblem",
    "Stimulus",
    "StimulusLimits",
    "Waveform",
    "adaptive_stimulation",
    "optimize_inputs",
    "stimulate",
]
