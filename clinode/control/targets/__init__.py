"""Where to stimulate: rankings beside null networks, sets of inputs, the whole chain."""

from .nulls import Null, degree_preserving, geometry_preserving, strength_preserving
from .selection import (
    InputScores,
    InputSet,
    average_energy_scores,
    best_inputs,
    greedy_inputs,
    volumetric_scores,
)
from .steering import Steering, steer
from .targets import TargetRanking, rank_targets

__all__ = [
    "InputScores",
    "InputSet",
    "Null",
    "Steering",
    "TargetRanking",
    "average_energy_scores",
    "best_inputs",
    "degree_preserving",
    "geometry_preserving",
    "greedy_inputs",
    "rank_targets",
    "steer",
    "strength_preserving",
    "volumetric_scores",
]
