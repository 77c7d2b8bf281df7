"""Whether a model is right for the right reason: predicted and actual effects of interventions."""

from .align import interventional_alignment
from .experiments import Experiment, cuts, describe, lesions
from .readouts import AtRest, OverTime, Period, Reading, Readout
from .result import Alignment
from .scores import Scores, ceiling_of, score_effects, share_of_ceiling
from .twins import covariance_twins, seen_effects, similar_twins

__all__ = [
    "Alignment",
    "AtRest",
    "Experiment",
    "OverTime",
    "Period",
    "Reading",
    "Readout",
    "Scores",
    "ceiling_of",
    "covariance_twins",
    "cuts",
    "describe",
    "interventional_alignment",
    "lesions",
    "score_effects",
    "seen_effects",
    "share_of_ceiling",
    "similar_twins",
]
